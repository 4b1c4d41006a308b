"""What the node is for, said once.

Admission, reports, heatmap, status page and evaluation all read this page, so that none of them
can promise more than another.
"""

PRODUCT = "CovidNet Node"
MANUFACTURER = "CovidNet Node project"

IMPLEMENTATION_UID = "2.25.309190340529143262418213205148205413141"
IMPLEMENTATION_NAME = "COVIDNET_NODE_1"
"""Implementation Class UID and Version Name, in files and associations (PS3.7 D.3.3.2)."""

NOTICE = "Research use only, not for diagnosis"
"""Stands in series descriptions, on the image and in the report, word for word."""

STATEMENT = "Frontal (PA or AP) chest radiographs of adults"

MODALITIES = frozenset({"CR", "DX"})
FRONTAL_VIEWS = frozenset({"PA", "AP"})
LATERAL_VIEWS = frozenset({"LL", "RL", "LATERAL", "LAT", "L", "LLD", "RLD"})
MINIMUM_AGE_YEARS = 18
MINIMUM_SIDE = 200
"""Shorter image sides (pixels) hold too little lung to read."""

CLASSES = ("covid19", "pneumonia", "normal")
"""Order of every probability vector in code, weights and reports."""

FINDINGS = {
    "covid19": "Findings compatible with COVID-19 pneumonia",
    "pneumonia": "Findings compatible with pneumonia other than COVID-19",
    "normal": "No COVID-19 or pneumonia pattern found; other disease not assessed",
}

UNLIKELY, LIKELY = 0.20, 0.50
"""Probability of a class at and below which nothing in the image is pointed at for it, neither in
color nor as a region, and from which color has its full strength."""
