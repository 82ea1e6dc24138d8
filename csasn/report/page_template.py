"""The page of report.html, as a template of Jinja.

It is text of Python, since Flower's packer, which makes the app of `flwr run`, takes no .html.
"""

from csasn.report.page_style import HEAD

TEMPLATE = (
    """\
{% macro grid(charts) %}
<div class="charts{{ ' two' if charts | length in (2, 4) }}">{% for chart in charts %}{{ chart }}{% endfor %}</div>
{% endmacro %}
{% macro star(row) %}
{% if few(row) %}<span class="few" title="too few test cases to conclude from">*</span>{% endif %}
{% endmacro %}
{% set rounds = range(marked.items('rounds') | length) %}
{% set classes = marked.names('classes') %}
{% set final = marked.find('final') %}
"""
    + HEAD
    + """\
<title>Report of a CSASN federation</title>
<style>
{{ style }}</style>
</head>
<body>
<header>
<p class="notice">{{ notice[:1] | upper }}{{ notice[1:] }}.</p>
<h1>Report of {% if marked.find('study') %}{{ marked.text('study') }}{% else %}a federation{% endif %}</h1>
<p class="remark"><span class="status {{ marked.find('status') }}">{{ marked.text('status') }}</span>
{% if marked.items('events') %}
<span>{{ marked.moment('events', 0, 'time') }} to {{ marked.moment('events', marked.items('events') | length - 1, 'time') }}</span>
{% endif %}
</p>
</header>
<main>

<section id="summary">
<h2>In plain words</h2>
{% for paragraph in summary %}
<h3>{{ paragraph.title }}</h3>
{% if loop.last %}
<ul>{% for sentence in paragraph.sentences %}<li>{{ sentence }}</li>{% endfor %}</ul>
{% else %}
<p>{% for sentence in paragraph.sentences %}{{ sentence }} {% endfor %}</p>
{% endif %}
{% endfor %}
</section>

<section id="comparison">
<h2>Alone, pooled, federated</h2>
{% if methods %}
<p>{% if marked.find('absent_at_finish') %}The federated model on test cases of {{ whose }},
any other on those of all sites: not the same cases
{%- else %}All on the same test cases, those of all sites{% endif %}
{%- if methods | length > 1 %}, after the same number of optimiser steps{% endif %}.
{% if marked.find('final', 'intervals') %}Intervals: {{ marked.text('final', 'intervals') }}.
{% else %}Intervals are of <span data-constant>95</span> %.{% endif %}</p>
{{ grid(comparison) }}
<div class="scroll"><table>
<thead><tr><th>model</th><th>macro AUROC</th><th>balanced accuracy</th><th>macro F1</th><th>malignancy AUROC</th>
{% if marked.find('final', 'ece') is not none %}<th>calibration error</th>{% endif %}</tr></thead>
<tbody>
{% for name, method in methods.items() %}
<tr{% if name == 'federated' %} class="strong"{% endif %}><th>{{ name }}</th>
<td>{{ method.rate('macro_auroc') }}{{ method.interval('macro_auroc_ci95') }}</td>
<td>{{ method.rate('balanced_accuracy') }}{{ method.interval('balanced_accuracy_ci95') }}</td>
<td>{{ method.rate('macro_f1') }}</td><td>{{ method.rate('malignancy_auroc') }}</td>
{% if marked.find('final', 'ece') is not none %}<td>{{ method.rate('ece') }}</td>{% endif %}</tr>
{% endfor %}
</tbody></table></div>
{% if methods | length > 1 %}
<h3>Recall of each class</h3>
<div class="scroll"><table>
<thead><tr><th>model</th>{% for name in classes %}<th>{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for title, method in methods.items() %}
<tr{% if title == 'federated' %} class="strong"{% endif %}><th>{{ title }}</th>
{% for name in classes %}
<td>{{ method.rate('per_class', name, 'recall') }}{{ star(method.at('per_class', name)) }}
{{- method.interval('per_class', name, 'recall_ci95') }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>
{% else %}
<p>There are no baselines: the run was begun without them, or is a deployment, where no site sees another's cases.</p>
{% endif %}
{% else %}
<p class="missing">{{ missing }}</p>
{% endif %}
</section>

<section id="classes">
<h2>Each class</h2>
{% if final %}
<div class="scroll"><table>
<thead><tr><th>class</th><th>test cases</th>{% if marked.find('training_cases') %}<th>training cases</th>{% endif %}
<th>recall</th><th>precision</th><th>F1</th><th>AUROC</th>
{% if marked.find('final', 'ece') is not none %}<th>calibration error</th>{% endif %}</tr></thead>
<tbody>
{% for name in marked.names('final', 'per_class') %}
{% set row = marked.at('final', 'per_class', name) %}
<tr><th>{{ name }}{{ star(row) }}</th><td>{{ row.count('support') }}</td>
{% if marked.find('training_cases') %}<td>{{ marked.count('training_cases', name) }}</td>{% endif %}
<td>{{ row.rate('recall') }}{{ row.interval('recall_ci95') }}</td>
<td>{{ row.rate('precision') }}{{ row.interval('precision_ci95') }}</td>
<td>{{ row.rate('f1') }}</td>
<td>{{ row.rate('auroc') }}{{ row.interval('auroc_ci95') }}</td>
{% if marked.find('final', 'ece') is not none %}<td>{{ row.rate('ece') }}</td>{% endif %}</tr>
{% endfor %}
</tbody></table></div>
<p class="remark">* too few test cases to conclude from. A dash for a rate: nothing to divide by.
{% if marked.find('training_cases') %}A dash for training cases: so few that their number is not shown.{% endif %}</p>
{% for item in class_figures %}
<h3>{{ item.name }}{{ star(marked.at('final', 'per_class', item.name)) }}</h3>
{{ grid(item.charts) }}
{% endfor %}
{% if class_figures %}
<p class="remark">Dotted lines: what guessing reaches; in reliability charts, probabilities that can be taken at their word. There a
mark is a group of cases of similar probability, its size their number.</p>
{% endif %}
<h3>Which class is taken for which</h3>
<div class="scroll"><table class="heat">
<thead><tr><th>true class</th>{% for name in classes %}<th>decided {{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name in classes %}
{% set index = loop.index0 %}
<tr><th>{{ name }}</th>
{% for share in shades[index] %}
<td{% if loop.index0 == index %} class="hit"{% endif %} style="--share:{{ '%.3f' % share }}">
{{- marked.count('final', 'confusion', index, loop.index0) }}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>
<p class="remark">Test cases. The darker, the larger the share of the row; right decisions are framed.
{% if marked.items('adjustment') | map('abs') | sum %}Decided is the class whose log probability is the largest after subtraction of
{% for name in classes %}
{{ marked.rate('adjustment', loop.index0) }} for {{ name }}{{ ', ' if not loop.last else '.' }}
{% endfor %}{% endif %}</p>
{% else %}
<p class="missing">{{ missing }}</p>
{% endif %}
</section>

<section id="rounds">
<h2>Round by round</h2>
{% if rounds %}
{% if round_charts %}
<p>Of the model that came of each round, on validation cases.</p>
{% else %}
<p class="missing">No validation metrics: they were withheld, or no model was evaluated yet.</p>
{% endif %}
{{ grid(round_charts + weight_charts) }}
<details><summary>The values</summary>
<div class="scroll"><table>
<thead><tr><th>round</th><th>macro AUROC</th><th>balanced accuracy</th><th>loss</th>
{% for name in classes %}<th>recall {{ name }}</th>{% endfor %}
{% for name in classes %}<th>ω {{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for index in rounds %}
<tr><th>{{ marked.count('rounds', index, 'round') }}</th><td>{{ marked.rate('rounds', index, 'macro_auroc') }}</td>
<td>{{ marked.rate('rounds', index, 'balanced_accuracy') }}</td><td>{{ marked.rate('rounds', index, 'loss') }}</td>
{% for name in classes %}<td>{{ marked.rate('rounds', index, 'recall', name) }}</td>{% endfor %}
{% for name in classes %}<td>{{ marked.rate('rounds', index, 'class_weights', loop.index0) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div></details>
{% else %}
<p class="missing">No round was finished.</p>
{% endif %}
</section>

<section id="participation">
<h2>Who took part</h2>
<dl class="presence">
{% for site, cells in presences.items() %}
<dt>{{ site }} <small>weight {{ marked.rate('sites', site, 'weight') }}</small></dt>
<dd><ol>{% for cell in cells %}<li class="{{ cell.kind }}" title="{{ cell.words }}">{{ cell.number -}}
{% if cell.kind == 'absent' %}<span>✕</span>{% endif %}</li>{% endfor %}</ol>{% if not cells %}–{% endif %}</dd>
{% endfor %}
</dl>
{% if rounds %}
<p class="remark">A box is a round; ✕ where the site was absent. The weight of a site is its share of the training cases.</p>
{% endif %}
{% if absences %}
<div class="scroll"><table><thead><tr><th>round</th><th class="text">absent</th><th class="text">why</th></tr></thead><tbody>
{% for absence in absences %}
<tr><th>{{ absence.number }}</th><td class="text">{{ absence.site }}</td><td class="text">{{ absence.why }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if marked.find('absent_at_finish') %}
<p>Absent at the end, when test cases were counted: {% for site in marked.names('absent_at_finish') -%}
{{ site }} ({{ marked.text('absent_at_finish', site) }}){{ ', ' if not loop.last }}{% endfor %}.</p>
{% endif %}
{% if marked.find('data') %}
<h3>Cases and images that were used</h3>
<div class="scroll"><table>
<thead><tr><th></th><th>cases</th><th>used</th><th>images</th><th>used</th><th>unreadable, left out</th></tr></thead>
<tbody>
{% for split in marked.names('data') %}
{% set row = marked.at('data', split) %}
<tr><th>{{ split }}</th><td>{{ row.count('cases') }}</td><td>{{ row.count('cases_used') }}</td><td>{{ row.count('images') }}</td>
<td>{{ row.count('images_used') }}</td><td>{{ row.count('images_left_out') }}</td></tr>
{% endfor %}
</tbody></table></div>
<p class="remark">Of all sites together, when the run began. Where training cases of a class are too few to be shown, they are in
no number of training here, and a dash stands for images: totals would tell how many they are.</p>
{% endif %}
{% if troubles %}
<h3>Out of the ordinary</h3>
<div class="scroll"><table>
<thead><tr><th>time</th><th class="text">what</th><th>round</th><th class="text">why</th></tr></thead>
<tbody>
{% for trouble in troubles[-max_troubles:] %}
{% set event = marked.at('events', trouble.index) %}
<tr><th>{{ event.moment('time') }}</th><td class="text">{{ trouble.words }}</td>
<td>{% if event.find('round') is not none %}{{ event.count('round') }}{% endif %}</td>
<td class="text">
{%- for site, why in trouble.told %}{{ site }}{{ ': ' if site and why }}{{ why }}{{ '; ' if not loop.last }}{% endfor %}</td></tr>
{% endfor %}
</tbody></table></div>
{% if troubles | length > max_troubles %}
<p class="remark">The newest alone; all are in events.jsonl.</p>
{% endif %}
{% endif %}
</section>

{% if rounds %}
<section id="traffic">
<h2>Bytes and seconds</h2>
{% if marked.find('totals') %}
<p>In all {{ marked.size('totals', 'bytes_up') }} from the sites, {{ marked.size('totals', 'bytes_down') }} to them,
{{ marked.seconds('totals', 'seconds') }}. Rounds: {{ marked.count('totals', 'rounds') }}; repeated:
{{ marked.count('totals', 'repeated_rounds') }}; partial, without all sites: {{ marked.count('totals', 'partial_rounds') }}.</p>
{% endif %}
{{ grid(traffic_charts) }}
<details><summary>The values</summary>
<div class="scroll"><table>
<thead><tr><th>round</th><th>up</th><th>down</th><th>time</th><th>attempts</th><th>clipped share</th></tr></thead>
<tbody>
{% for index in rounds %}
<tr><th>{{ marked.count('rounds', index, 'round') }}</th><td>{{ marked.size('rounds', index, 'bytes_up') }}</td>
<td>{{ marked.size('rounds', index, 'bytes_down') }}</td><td>{{ marked.seconds('rounds', index, 'seconds') }}</td>
<td>{{ marked.count('rounds', index, 'attempts') }}</td><td>{{ marked.rate('rounds', index, 'clipped_share') }}</td></tr>
{% endfor %}
</tbody></table></div></details>
</section>
{% endif %}

{% if card %}
<section id="card">
<h2>Model card</h2>
{% for section in card %}
<h3>{{ section.title }}</h3>
{% for paragraph in section.paragraphs %}
<p>{{ paragraph }}</p>
{% endfor %}
{% if section.rows %}
<dl class="facts">{% for name, said in section.rows %}<dt>{{ name }}</dt><dd>{{ said }}</dd>{% endfor %}</dl>
{% endif %}
{% endfor %}
</section>
{% endif %}

<section id="hashes">
<h2>Hashes, and how it was made</h2>
<dl class="facts hashes">
{% for key, name in (('study_hash', 'study'), ('membership_hash', 'membership'), ('weights_sha256', 'model.safetensors'),
                     ('state_hash', 'global weights after the last round'), ('code_version', 'version'), ('engine', 'engine'),
                     ('profile', 'profile'), ('seed', 'seed'), ('schema_version', 'version of report.json')) %}
{% if marked.find(key) is not none %}<dt>{{ name }}</dt><dd>{{ marked.text(key) }}</dd>{% endif %}
{% endfor %}
<dt>secure aggregation</dt><dd>{{ marked.yes_or_no('secure_aggregation') }}</dd>
</dl>
<p class="remark">Every number on this page is from report.json or events.jsonl, which lie beside it.</p>
</section>
</main>
</body>
</html>
"""
)
