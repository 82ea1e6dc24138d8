"""survey.html: a survey for people. One file, which asks for no other, and holds no script."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from csasn.platform.storage import write_atomically
from csasn.report.charts import BarRow, bar_chart, value_axis
from csasn.report.marked import Marked, listed
from csasn.report.page_style import HEAD, STYLE
from csasn.report.summary import ENGINES
from csasn.report.survey import HIDDEN

TEMPLATE = (
    HEAD
    + """\
<title>Survey before a CSASN federation</title>
<style>
{{ style }}</style>
</head>
<body>
<header>
<p class="notice">Counts of cases before a study; nothing was trained.</p>
<h1>Survey of {{ marked.text('study') }}</h1>
<p class="remark"><span class="status {{ marked.find('status') }}">{{ marked.text('status') }}</span></p>
</header>
<main>
<section id="summary">
<h2>In plain words</h2>
{% for sentence in summary %}
<p>{{ sentence }}</p>
{% endfor %}
</section>
{% if tables %}
<section id="pictures">
<h2>Pictures</h2>
<div class="charts">{% for chart in charts %}{{ chart }}{% endfor %}</div>
</section>
<section id="numbers">
<h2>Numbers</h2>
{% for table in tables %}
<h3 data-key="{{ table.key('title') }}">{{ table.find('title') }}</h3>
<div class="scroll"><table>
<thead><tr><th>cases</th><th>over all sites</th><th>sites that hide theirs</th></tr></thead>
<tbody>
{% for row in rows(table) %}
<tr><th>{{ row.text('name') }}</th>
<td>{% if row.number('count') is none %}{{ hidden }}{% else %}{{ row.count('count') }}{{ ' or more' if row.number('hiding_sites') }}
{%- endif %}</td><td>{{ row.count('hiding_sites') }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endfor %}
</section>
{% endif %}
<section id="hashes">
<h2>Hashes, and how it was made</h2>
<dl class="facts hashes">
{% for key, name in (('study_hash', 'survey'), ('membership_hash', 'membership'), ('code_version', 'version'), ('engine', 'engine'),
                     ('schema_version', 'version of survey.json'), ('coordinator_saw', 'the coordinator saw')) %}
<dt>{{ name }}</dt><dd>{{ marked.text(key) }}</dd>
{% endfor %}
</dl>
<p class="remark">Every number on this page is from survey.json, which lies beside it.</p>
</section>
</main>
</body>
</html>
"""
)


def write_survey_page(survey: Mapping[str, object], path: Path) -> None:
    """Writes the page of a survey, as of survey.json.

    Raises:
        StorageError: it cannot be written.
    """
    write_atomically(path, render_survey_page(survey).encode())


def render_survey_page(survey: Mapping[str, object]) -> str:
    """The page as text."""
    marked = Marked(survey)
    tables = [marked.at("tables", number) for number in range(len(marked.items("tables")))]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE).render(
        marked=marked,
        style=Markup(STYLE),  # noqa: S704 - our own
        summary=_summary(marked, tables),
        tables=tables,
        rows=_rows,
        charts=[chart for table in tables if (chart := _chart(table))],
        hidden=HIDDEN,
    )


def _rows(table: Marked) -> list[Marked]:
    return [table.at("rows", number) for number in range(len(table.items("rows")))]


def _summary(marked: Marked, tables: list[Marked]) -> list[Markup]:
    sites = Markup("The sites {} were asked {}.").format(listed(marked.names("sites")), ENGINES[str(marked.find("engine"))])
    if not tables:
        return [sites, Markup("Nothing is counted yet.")]
    cases = _rows(tables[0])[0]
    more = " or more" if cases.number("hiding_sites") else ""
    number = Markup("{}").format(HIDDEN) if cases.number("count") is None else cases.count("count")
    least = marked.count("smallest_sum")
    return [
        sites,
        Markup("Cases over all sites: {}{}. Each table below parts these cases.").format(number, more),
        Markup(
            "A count is {} where all sites together have fewer than {}, which may be none, and with it the smallest other one of "
            "its table, since the total would give it away. A site hides its own part of a count in the same way, before it sends "
            "anything; then the count is followed by <em>or more</em>, and the last column says how many sites did so. "
            "Of a case with several images the smallest one counts, and the makers of all of them."
        ).format(Markup("<em>{}</em>").format(HIDDEN), least),
    ]


def _chart(table: Marked) -> Markup:
    """The bars of a table; nothing where all of it hides."""
    rows = _rows(table)
    counts = [count for row in rows if (count := row.number("count")) is not None]
    if not counts or len(rows) < 2:
        return Markup()
    bars = [BarRow(str(row.find("name")), row.key("name"), row.number("count"), row.key("count"), _note(row)) for row in rows]
    return bar_chart(
        str(table.find("title")), "A bar for each count, as in the table of numbers.", value_axis("cases", counts, 0), bars
    )


def _note(row: Marked) -> str:
    if row.number("count") is None:
        return HIDDEN
    return "or more" if row.number("hiding_sites") else ""
