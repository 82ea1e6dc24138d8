"""Who is who: keys, certificates, memberships and requests to join. What is signed is decided in the rooms that sign."""
