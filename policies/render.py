"""Fill the policies in with an overlay's settings.

    python policies/render.py kustomize/overlays/eks-p5/settings/settings.env build/policies

A policy whose name holds `ROLE` is written once for each role.
"""

import sys
from pathlib import Path
from string import Template

FOLDER = Path(__file__).parent
ROLES = ("data", "launcher", "trainer", "server")


def read_settings(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of a file.

    Raises:
        ValueError: A line is none.
    """
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    settings = [line.partition("=") for line in lines if line and not line.startswith("#")]
    if odd := [name for name, equals, _ in settings if not equals]:
        raise ValueError(f"{odd[0][:60]!r} is no NAME=value")
    return {name: value for name, _, value in settings}


def render(settings: dict[str, str], target: Path) -> list[Path]:
    """Write every policy under `target`; variables of IAM itself (`${aws:...}`) stay.

    Raises:
        KeyError: A policy uses a setting that is not there.
    """
    written = []
    for path in sorted(FOLDER.glob("*/*.json")):
        for role in ROLES if "ROLE" in path.name else ("",):
            name = target / path.relative_to(FOLDER).with_name(path.name.replace("ROLE", role))
            name.parent.mkdir(parents=True, exist_ok=True)
            name.write_text(_Policy(path.read_text()).substitute(settings, ROLE=role))
            written.append(name)
    return written


class _Policy(Template):
    """A `$` stands for a setting only before `{NAME}` in capitals."""

    pattern = r"\$\{(?:(?P<braced>[A-Z][A-Z0-9_]*)\}|(?P<named>(?!))|(?P<escaped>(?!))|(?P<invalid>(?!)))"  # type: ignore[assignment]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        for policy in render(read_settings(Path(sys.argv[1])), Path(sys.argv[2])):
            print(policy)
    except KeyError as missing:
        sys.exit(f"{sys.argv[1]}: no setting {missing.args[0]}, which a policy uses; add {missing.args[0]}=VALUE")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}; give the settings.env of an overlay, and a folder to write to")
    except ValueError as error:
        sys.exit(f"{sys.argv[1]}: {error}; give the settings.env of an overlay, such as the one of eks-p5")
