"""The template, for Jinja, and the style of the page of `client report`, beyond what csasn/report/page_style.py has."""

from csasn.report.page_style import HEAD

STYLE = """
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; margin: .75rem 0; }
.examples figure { max-width: none; break-inside: avoid; }
.pair { display: flex; gap: .4rem; }
.pair img { flex: 1 1 0; min-width: 0; max-width: 50%; aspect-ratio: 1; border-radius: .25rem; background: #000; }
.examples dl { display: grid; grid-template-columns: max-content 1fr max-content; gap: .1rem .5rem; margin: .5rem 0 0;
  font-size: .85rem; align-items: center; }
.examples dd { margin: 0; } .examples meter { width: 100%; height: .7rem; }
th.group { text-align: center; }
.wrong { color: var(--warn); font-weight: 700; }
@media print { .examples { grid-template-columns: repeat(3, 1fr); } }
"""

TEMPLATE = (
    """\
{% macro rate(cell) %}
<td>{{ cell.value }}{% if cell.few %}<span class="few" title="too few test cases to conclude from">*</span>{% endif %}
{% if cell.interval %}<small class="interval">{{ cell.interval }}</small>{% endif %}</td>
{% endmacro %}
{% macro shown(pictures) %}
<div class="examples">
{% for picture in pictures %}
<figure><figcaption>Row {{ picture.row }}: {{ picture.label }}{% if picture.label != picture.decision %},
<span class="wrong">decided {{ picture.decision }}</span>{% endif %}</figcaption>
<div class="pair"><img src="{{ picture.plain }}" alt="image of row {{ picture.row }} as the model sees it">
{% if picture.seen %}
<img src="{{ picture.seen }}" alt="the same, orange where it spoke for {{ picture.decision }}">
{% endif %}</div>
<dl>{% for name, share in picture.bars %}<dt>{{ name }}</dt>
<dd><meter min="0" max="100" value="{{ share }}">{{ share }} %</meter></dd><dd>{{ share }} %</dd>{% endfor %}</dl>
{% if picture.more %}<small>mean of this image and {{ picture.more }} more of the case</small>{% endif %}
</figure>
{% endfor %}
</div>
{% endmacro %}
"""
    + HEAD
    + """\
<title>{{ report.site }}: what joining brought</title>
<style>
{{ style }}</style>
</head>
<body>
<header>
<p class="notice">Shows images of patients of {{ report.site }}: not to leave this site. Nothing of this page was sent anywhere.
The model is {{ notice }}.</p>
<h1>What {{ report.site }} gained by joining {{ study.name }}</h1>
</header>
<main>
<section id="summary">
<h2>In plain words</h2>
<ul>{% for sentence in sentences %}<li>{{ sentence }}</li>{% endfor %}</ul>
</section>

<section id="comparison">
<h2>{% if report.alone %}Federated, and alone{% else %}The federated model{% endif %}</h2>
<p>On the test cases of this site. Intervals are of 95 %, by drawing the test cases of each class
anew{% if report.alone %}, the same for both models{% endif %}.
{% if report.alone %}The model alone was trained on this site's own cases, with the study's loss and rounds, and as many passes over
the cases as this site made in the study.
{% if study.model_selection == 'best' %}Its own validation cases chose its round.{% endif %}{% endif %}</p>
<div class="charts">{% for chart in charts %}{{ chart }}{% endfor %}</div>
<div class="scroll"><table>
<thead><tr><th>measure</th><th>federated</th>{% if report.alone %}<th>alone</th><th>difference</th>{% endif %}</tr></thead>
<tbody>{% for name, cells in compared %}<tr><th>{{ name }}</th>{% for cell in cells %}{{ rate(cell) }}{% endfor %}</tr>
{% endfor %}</tbody></table></div>
</section>

<section id="classes">
<h2>Class by class</h2>
<div class="scroll"><table>
<thead>
{% if report.alone %}
<tr><th colspan="3"></th><th class="group" colspan="3">federated</th><th class="group" colspan="3">alone</th></tr>
{% endif %}
<tr><th>class</th><th>training cases here</th><th>test cases here</th><th>recall</th><th>precision</th><th>AUROC</th>
{% if report.alone %}<th>recall</th><th>precision</th><th>AUROC</th>{% endif %}</tr></thead>
<tbody>{% for row in class_rows %}<tr><th>{{ row.name }}</th><td>{{ row.training }}</td><td>{{ row.support }}</td>
{% for cell in row.cells %}{{ rate(cell) }}{% endfor %}</tr>
{% endfor %}</tbody></table></div>
<p class="remark">AUROC is of the class against the rest. Intervals of recall and precision are Wilson's, those of AUROC at least
Newcombe's.
{% if has_few %}<span class="few">*</span> fewer than {{ fewest }} test cases: nothing is to be concluded.{% endif %}</p>
</section>

<section id="confusion">
<h2>What was taken for what</h2>
{% for name, rows in confusions.items() %}
<h3>{{ name | capitalize }}</h3>
<div class="scroll"><table class="heat">
<thead><tr><th>is</th>{% for label in classes %}<th>decided {{ label }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}{% set index = loop.index0 %}<tr><th>{{ classes[index] }}</th>
{% for count, share in row %}
<td style="--share:{{ share }}"{% if loop.index0 == index %} class="hit"{% endif %}>{{ count }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endfor %}
</section>

<section id="mistakes">
<h2>The most certain mistakes of the federated model</h2>
{% if mistakes %}
<p>By row of manifest.csv. Left the image as the model sees it; right, where there is one, orange where it spoke most for the
decision (Grad-CAM): a hint, not a proof.
{% if report.info.adjustment | select | list %}
Rare classes are weighed up when the model decides, so that another class may have the largest probability.
{% endif %}</p>
{{ shown(mistakes) }}
{% else %}<p>It made none on these cases.</p>{% endif %}
</section>

<section id="right">
<h2>The most certain right decisions of the federated model</h2>
{% if right %}{{ shown(right) }}{% else %}<p>It made none on these cases.</p>{% endif %}
</section>

<section id="origin">
<h2>Where this comes from</h2>
<dl class="hashes">
<dt>study</dt><dd>{{ report.info.study_hash }}</dd>
<dt>weights</dt><dd>{{ report.info.weights_sha256 }}</dd>
<dt>model of round</dt><dd>{{ report.info.round }}</dd>
<dt>code version</dt><dd>{{ report.info.code_version }}</dd>
</dl>
</section>
</main>
</body>
</html>
"""
)
