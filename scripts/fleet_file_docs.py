"""Write what docs/ says of the fleet file's fields and of PM2's attributes: `make fleet-file-docs`."""

import json
from pathlib import Path

from fleetctl.fleet_file.schema import field_table, json_schema
from fleetctl.pm2.attributes import table

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- written by make fleet-file-docs -->", "<!-- until here -->"
PAGES = {"fleet-file.md": field_table, "moving/pm2.md": table}


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def page_text(name: str, page: str) -> str:
    """The page with today's table between the marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{PAGES[name]()}\n\n{END}{rest.partition(END)[2]}"


def main() -> None:
    (DOCS / "fleet-file.schema.json").write_text(schema_text())
    for name in PAGES:
        page = DOCS / name
        page.write_text(page_text(name, page.read_text()))


if __name__ == "__main__":
    main()
