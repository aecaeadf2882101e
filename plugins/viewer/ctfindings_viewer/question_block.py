"""The part of the page where a reader asks in free text: the question, what its score is worth, and the depth profile
of the answer that is shown.
"""

from typing import Any

from ctfindings_client.answers import Evidence
from trame.widgets import html
from trame.widgets import vuetify3 as v

from . import texts
from .fields import COMPACT, RETURN, TYPED


class QuestionBlock:
    """What its buttons do, and what it shows.

    Args:
        viewer: with the scan, and the questions to the server.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer, self.state = viewer, viewer.state
        self.evidence: Evidence | None = None
        self.state.update({"query": "", "meaning": "", "curve": None})

    def build(self) -> None:
        """Adds the elements to the page that is being built."""
        with html.Div(classes="ct-block"):
            with html.Div(classes="ct-line"):
                v.VTextField(
                    v_model="query",
                    label="Ask in your own words",
                    placeholder="fluid around the lung",
                    maxlength=300,
                    __properties=["maxlength"],
                    keydown_enter=(self.on_ask, TYPED),
                    disabled=("!has_scan",),
                    id="query",
                    **RETURN,
                    **COMPACT,
                )
                v.VBtn(
                    "Ask",
                    click=(self.on_ask, "[query]"),
                    disabled=("!has_scan || busy || !query",),
                    variant="tonal",
                    id="ask",
                )
            html.Div("{{ meaning }}", v_if="meaning", classes="ct-small ct-meaning", id="meaning")
            with html.Div(v_if="curve", classes="ct-chart", id="depth"):
                html.Div("Depth profile: {{ curve.text }}", classes="ct-small ct-chart-title", title=("curve.text",))
                html.Div(
                    f"""<svg viewBox="0 0 {texts.CHART_WIDTH:.0f} {texts.CHART_HEIGHT:.0f}" preserveAspectRatio="none"
                        class="ct-curve">
                    <polygon :points="curve.area" class="ct-curve-area"></polygon>
                    <polyline :points="curve.line" class="ct-curve-line" vector-effect="non-scaling-stroke"></polyline>
                    <line v-if="curve.mark" :x1="curve.mark[0]" :x2="curve.mark[0]" y1="0" y2="{texts.CHART_HEIGHT:.0f}"
                        class="ct-curve-mark" vector-effect="non-scaling-stroke"></line></svg>""",
                    classes="ct-curve-frame",
                    title="Click to move the axial view to that level",
                    click=(
                        self.on_curve,
                        "[$event.offsetX / $event.currentTarget.clientWidth]",
                    ),
                )
                with html.Div(classes="ct-curve-ends"):
                    html.Span("{{ curve.low }}")
                    html.Span("{{ curve.shown }}", classes="ct-curve-shown")
                    html.Span("{{ curve.high }}")

    def on_ask(self, text: str | None) -> None:
        """Takes the views to what answers a free text."""
        volume, query = self.viewer.scene.volume, " ".join(str(text or "").split())
        if volume is None or not query:
            return

        def done(answer: Any) -> None:
            self.state.selected = ""
            self.viewer.show_evidence(volume, answer)

        self.viewer.ask(lambda: self.viewer.studies.ask_evidence(volume, query=query), done)

    def show(self, evidence: Evidence | None) -> None:
        """What an answer means, and its depth profile; None empties both."""
        self.evidence = evidence
        self.state.meaning = "" if evidence is None else evidence.meaning
        self.state.curve = None
        self.show_curve()

    def show_curve(self) -> None:
        """The depth profile, with a mark where the axial view stands."""
        if self.evidence is not None:
            z = self.viewer.scene.places().get("Axial")
            self.state.curve = texts.depth_curve(
                self.evidence.text, self.evidence.depth, z, self.viewer.readout.image_at
            )

    def on_curve(self, across: float) -> None:
        """Moves the axial view to a height of the depth profile: 0 its left, 1 its right edge."""
        if self.evidence is not None and len(self.evidence.depth) > 1:
            self.viewer.scene.set_height(texts.height_at(self.evidence.depth, float(across)))
