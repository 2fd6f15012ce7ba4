"""Where a task writes."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Paths and folder of what a task leaves; empty where it leaves no such thing."""

    json_path: str
    """Its result, or the manifest of its files, which is written last."""
    data_uri: str = ""
    """Folder of these files, local or `s3://`."""
    html_path: str = ""
    """Its report, one page."""
    markdown_path: str = ""
    """The same in short."""
