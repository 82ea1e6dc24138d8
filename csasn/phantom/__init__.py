"""Synthetic thyroid ultrasound, so that everything here can be tried without a patient. Never evidence about patients."""

from csasn.phantom.benchmark import phantom_settings
from csasn.phantom.card import SiteCounts
from csasn.phantom.case import Case, CaseView, Drawing, draw, draw_case
from csasn.phantom.contact_sheet import draw_contact_sheet
from csasn.phantom.dataset import PhantomSummary, read_settings, redraw_case, write_phantom
from csasn.phantom.nodule import CLASSES, DESCRIPTORS, Nodule, draw_nodule
from csasn.phantom.scanner import SCANNERS
from csasn.phantom.settings import CasePlan, PhantomSettings, SiteMix, case_labels, case_plans, class_counts

__all__ = [
    "CLASSES",
    "DESCRIPTORS",
    "SCANNERS",
    "Case",
    "CasePlan",
    "CaseView",
    "Drawing",
    "Nodule",
    "PhantomSettings",
    "PhantomSummary",
    "SiteCounts",
    "SiteMix",
    "case_labels",
    "case_plans",
    "class_counts",
    "draw",
    "draw_case",
    "draw_contact_sheet",
    "draw_nodule",
    "phantom_settings",
    "read_settings",
    "redraw_case",
    "write_phantom",
]
