"""Draws a dashboard from its file and a real Prometheus' data, where no Grafana is at hand.

    PYTHONPATH=tools python -m grafana.drawing manifests/grafana/run.json --prometheus http://127.0.0.1:9090 \\
        --set namespace=default --set run=quickstart --out docs/images/dashboard-run.png

Panels lie where the file says and show what its queries return. Fonts, spacing and tooltips are not Grafana's.
"""
