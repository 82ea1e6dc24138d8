"""What stands between the network and SuperLink: routes, bounds, signatures of nodes and sites."""
