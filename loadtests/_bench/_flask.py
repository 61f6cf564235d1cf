"""A page as Flask applications have them: a route, a template, a table of rows."""

from flask import Flask, render_template, request
from jinja2 import DictLoader

_PAGE = """\
<!doctype html>
<html lang="en">
<title>{{ title }}</title>
<h1>{{ title }}</h1>
<p>{{ rows|length }} rows{% if query %} for {{ query }}{% endif %}</p>
<table>
{%- for row in rows %}
  <tr class="{{ loop.cycle('odd', 'even') }}">
    <td>{{ row.id }}</td><td>{{ row.name }}</td><td>{{ '%.2f' % row.price }}</td>
  </tr>
{%- endfor %}
</table>
</html>
"""
_ROWS = [{"id": i, "name": f"Thing <{i}>", "price": i * 1.25} for i in range(20)]

page = Flask(__name__)
page.jinja_loader = DictLoader({"page.html": _PAGE})


@page.get("/")
def index() -> str:
    return render_template("page.html", title="Things", rows=_ROWS, query=request.args.get("q"))
