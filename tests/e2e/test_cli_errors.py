"""What goes wrong is one line that says what to do next, with the right exit code, and never a traceback."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from tests.e2e.command import Signpost

NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def signpost() -> Signpost:
    return Signpost(NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("get", "x"), "--feature"),
        pytest.param(("near", "1,1"), "--feature", marks=pytest.mark.long),
        pytest.param(("publish", "a", "b"), "--notification", marks=pytest.mark.long),
        (("chat",), "--notification"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_service_that_is_not_there(signpost: Signpost, arguments: tuple[str, ...], option: str) -> None:
    line = signpost.fails(*arguments)
    assert f"does not answer at {NOBODY}" in line
    assert "make run" in line
    assert option in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("near", "paris"), "write LAT,LON in degrees, as in 48.85,2.35"),
        (("near", "95,3"), "latitude is from -90 to 90"),
        (("near", "1,1", "--radius", "5 parsecs"), "write 5km, 800m, 3mi"),
        (("near",), "Missing argument"),
        (("near", "1,1", "--limit", "99999999999"), "'--limit'"),
        (("nearby", "1,1"), "No such command"),
        (("watch",), "say where"),
        (("listen", "a.>", "--from", "yesterday"), "write new, earliest"),
        (("fence", "put", "f"), "say where"),
        (("fence", "put", "f", "--near", "1,1", "--radius", "1km", "--events", "dwelled"), "--dwell"),
        (("fence", "put", "f", "--near", "1,1", "--radius", "1km", "--dwell", "5m"), "--events entered,left,dwelled"),
        (("publish", "a", "b", "--attribute", "novalue"), "KEY=VALUE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_usage(signpost: Signpost, arguments: tuple[str, ...], expected: str) -> None:
    line = signpost.fails(*arguments, code=2)
    assert expected in line
    assert line.endswith("(see --help)")


@pytest.mark.parametrize("group", [(), ("fence",), ("log",)], ids=" ".join)
def test_without_a_command_there_is_help_and_no_line_of_error(signpost: Signpost, group: tuple[str, ...]) -> None:
    done = signpost.run(*group)
    assert (done.returncode, done.stderr) == (2, "")
    assert "Usage: signpost" in done.stdout


def test_an_argument_that_is_not_utf_8(signpost: Signpost) -> None:
    assert "is not UTF-8" in signpost.fails("get", "\udcff")


def test_version_is_that_of_the_installed_package(signpost: Signpost) -> None:
    done = signpost.run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"signpost {version('signpost')}\n", "")


def test_a_file_that_is_not_there(signpost: Signpost) -> None:
    assert signpost.fails("import", "/no/such/file") == "/no/such/file: No such file or directory"


def test_a_collection_whose_features_are_no_list(signpost: Signpost) -> None:
    line = signpost.fails("import", "-", stdin='{"features":null}')
    assert line.startswith('"features" is null, not a list; write a FeatureCollection')


def test_health_of_services_that_are_not_there(signpost: Signpost) -> None:
    done = signpost.run("health")
    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.count("UNAVAILABLE") == 5


def test_without_its_extra_it_says_how_to_install_it() -> None:
    script = "import sys; sys.modules['typer'] = None; from signpost.cli.main import run; run()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr == "signpost: this command needs more packages: pip install 'signpost[cli]'\n"


def test_it_runs_as_a_module_too() -> None:
    command = [sys.executable, "-m", "signpost.cli", "near"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (2, "signpost: Missing argument 'LAT,LON' (see --help)\n")
