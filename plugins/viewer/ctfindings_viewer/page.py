"""The page: panel on the left with server, scan, table and free text; four views on the right under a bar of display
settings.
"""

from functools import partial
from pathlib import Path
from typing import Any

from ctfindings_client.anatomy import TERMS
from ctfindings_client.formats import SCAN_SUFFIXES
from ctfindings_client.record import COLUMNS, NOTICE
from trame.ui.vuetify3 import VAppLayout
from trame.widgets import client, html
from trame.widgets import vuetify3 as v
from trame_slicer.app.logic.slice_view_logic import connect_slice_view_slider_to_state
from trame_slicer.app.ui.slider import Slider
from trame_slicer.views import SliceView

from . import texts
from .display_bar import AMBER
from .fields import COMPACT, RETURN, TYPED
from .key_images import source
from .readout import place_key
from .scene import show_all

STYLE = Path(__file__).with_name("page.css")
TITLES = {"Axial": "Axial", "Coronal": "Coronal", "Sagittal": "Sagittal", "ThreeD": "3D"}
# Left, right, top and bottom edge of the views, in Slicer's orientations.
EDGES = {"Axial": "RLAP", "Coronal": "RLSI", "Sagittal": "APSI"}
# The dialog of a browser compares only what follows the last dot.
ACCEPTED = ",".join([".gz", *(suffix for suffix in SCAN_SUFFIXES if suffix.count(".") == 1)])
_BAR = COLUMNS.index("Probability")
# Vue takes an empty text for true.
_BUSY = "busy || (!!remote_line && !consent)"


def initial_state(state: Any, address: str) -> None:
    """Everything that the page reads, before there is a scan."""
    state.update(
        {
            "trame__title": "CT Findings",
            "address": address,
            "server_line": "Not connected",
            "server_error": "",
            "server_open": True,
            "connected": False,
            "remote_line": texts.remote_line(address),
            "consent": False,
            "scans": [],
            "scan_id": None,
            "scan_name": "",
            "has_scan": False,
            "busy": False,
            "part": None,
            "status": "Connect to a server.",
            "failed": False,
            "rows": [],
            "selected": "",
            "sort_column": -1,
            "sort_descending": False,
            "notice": "",
            "warnings": [],
            "draft": "",
            "draft_open": False,
        }
    )


def build(server: Any, layout: Any, viewer: Any) -> None:
    """Builds the page.

    Args:
        server: the trame server.
        layout: of the views.
        viewer: whose methods the buttons call.
    """
    with VAppLayout(server, theme="dark") as page:
        client.Style(STYLE.read_text(encoding="utf-8"))
        with html.Div(classes="ct-page"):
            with html.Div(classes="ct-head"):
                html.Span("CT Findings", classes="ct-title")
                html.Span(NOTICE, classes="ct-notice")
                html.Span("{{ scan_name }}", classes="ct-scan-name", title=("scan_name",))
            with html.Div(classes="ct-body"):
                with html.Div(classes="ct-panel"):
                    with html.Div(classes="ct-block"):
                        _server(viewer)
                        _scan(viewer)
                        _status()
                    _table(viewer)
                    _draft()
                    viewer.correction_block.build()
                    viewer.question_block.build()
                with html.Div(classes="ct-right"):
                    viewer.display_bar.build()
                    viewer.key_images.build()
                    with html.Div(classes="ct-views"):
                        layout.initialize_layout_grid(page)
                        html.Div(
                            "Choose a scan of the server or open a file.", v_if="!has_scan && !busy", classes="ct-empty"
                        )


def decorate_view(viewer: Any, server: Any, view_id: str, view: Any) -> None:
    """Puts name and place over a view, the letters of its edges, what is under the mouse, and a slider through the
    slices.
    """
    name = view.get_singleton_tag()
    with html.Div(classes="ct-corner"):
        html.Span(TITLES[name], classes=f"ct-view-name ct-{name.lower()}")
        if isinstance(view, SliceView):
            html.Span(
                f"{{{{ {place_key(name)} }}}}",
                v_if="has_scan",
                classes="ct-place",
                id=f"place-{name.lower()}",
                raw_attrs=[f'data-view="{name}"'],
            )
    v.VBtn(
        icon="mdi-fit-to-screen-outline",
        size="x-small",
        variant="text",
        classes="ct-reset",
        title="Show all",
        click=partial(show_all, view),
    )
    if isinstance(view, SliceView):
        for letter, edge in zip(EDGES[name], ("left", "right", "top", "bottom"), strict=True):
            html.Span(letter, v_if="has_scan", classes=f"ct-edge ct-edge-{edge}")
        viewer.readout.build(name)
        with html.Div(v_if="has_scan", classes="ct-slider"):
            Slider(
                connect_slice_view_slider_to_state(server, view),
                density="compact",
                thumb_size=12,
                track_size=2,
                color="#8fa3b5",
            )
    else:
        with html.Div(v_if="rows.length", classes="ct-colours", id="anatomy-colours"):
            for term in filter(lambda each: each.shown, TERMS.values()):
                html.Span(term.meaning, style=f"color: rgb{term.colour}")


def _server(viewer: Any) -> None:
    with html.Div(classes="ct-line", v_show="server_open"):
        v.VTextField(
            v_model="address",
            label="Server",
            keydown_enter=(viewer.on_connect, TYPED),
            classes="ct-address",
            **RETURN,
            **COMPACT,
        )
        v.VBtn("Connect", click=(viewer.on_connect, "[address]"), disabled=("busy",), variant="tonal", id="connect")
    v.VCheckbox(
        v_model="consent",
        v_if="remote_line",
        label=("remote_line",),
        density="compact",
        hide_details=True,
        classes="ct-consent",
        id="consent",
    )
    with html.Div(classes="ct-fold"):
        html.Div(
            "{{ server_error || server_line }}",
            classes=("server_error ? 'ct-small ct-error' : 'ct-small'",),
            id="server-line",
        )
        v.VBtn(
            "Change server",
            v_if="!server_open",
            click="server_open = true",
            variant="text",
            size="x-small",
            id="change-server",
        )


def _scan(viewer: Any) -> None:
    with html.Div(classes="ct-line"):
        v.VSelect(
            v_model="scan_id",
            items=("scans",),
            label=("scans.length || !connected ? 'Scan of the server' : 'The server has no scans'",),
            disabled=("!connected || busy || !scans.length",),
            id="scan-select",
            **COMPACT,
        )
        with v.VBtn(
            "Open file",
            disabled=(f"!connected || {_BUSY}",),
            variant="tonal",
            click="trame.refs.file.click()",
            id="open-file",
        ):
            html.Input(
                type="file",
                ref="file",
                accept=ACCEPTED,
                click="$event.stopPropagation()",
                style="display: none",
                id="file",
            )
        v.VBtn(
            "Find",
            click=viewer.on_find,
            disabled=(f"!has_scan || {_BUSY}",),
            color=AMBER,
            classes="ct-find",
            id="find",
        )
        v.VBtn("Cancel", click=viewer.on_cancel, disabled=("!busy",), variant="tonal", id="cancel")


def _status() -> None:
    v.VProgressLinear(
        model_value=("part || 0",),
        indeterminate=("busy && part === null",),
        active=("busy",),
        height=3,
        color=AMBER,
        absolute=False,
    )
    html.Div(
        "{{ status }}",
        classes=("failed ? 'ct-status ct-error' : 'ct-status'",),
        id="status",
        raw_attrs=['role="status"'],
    )
    html.Div("{{ line }}", v_for="line in warnings", key="line", classes="ct-small ct-warning")


def _table(viewer: Any) -> None:
    html.Div("{{ notice }}", v_if="notice", classes="ct-banner", id="notice", raw_attrs=['role="alert"'])
    with html.Div(classes="ct-block ct-table-block"):
        with html.Table(classes="ct-table", v_if="rows.length", id="findings"):
            with html.Thead(), html.Tr():
                for index, title in enumerate(COLUMNS):
                    arrow = f"{{{{ sort_column === {index} ? (sort_descending ? '▾' : '▴') : '' }}}}"
                    order = f"sort_column === {index} ? (sort_descending ? 'descending' : 'ascending') : 'none'"
                    with html.Th(classes=f"ct-column-{index}", scope="col", raw_attrs=[f':aria-sort="{order}"']):
                        html.Button(
                            f"{title} {arrow}",
                            click=(viewer.on_sort, f"[{index}]"),
                            type="button",
                            classes="ct-sort",
                            title=f"Sort by {title}",
                        )
            with (
                html.Tbody(),
                html.Tr(
                    v_for="row in rows",
                    key="row.name",
                    title=("row.name === selected ? row.hint : undefined",),
                    click=(viewer.on_finding_chosen, "[row.name]"),
                    classes=("{'ct-present': row.present, 'ct-selected': row.name === selected}",),
                    tabindex="0",
                    keydown_enter=(viewer.on_finding_chosen, "[row.name]"),
                    **RETURN,
                ),
            ):
                for index in range(len(COLUMNS)):
                    if index == _BAR:
                        with html.Td(), html.Div(classes="ct-probability"):
                            html.Span(f"{{{{ row.cells[{index}] }}}}")
                            with html.Div(classes="ct-bar"):
                                html.Div(classes="ct-bar-fill", style=("{width: row.percent + '%'}",))
                                html.Div(classes="ct-bar-mark", style=("{left: row.threshold_percent + '%'}",))
                    else:
                        html.Td(("{{ row.mark }}" if index == 0 else "") + f"{{{{ row.cells[{index}] }}}}")
                # Beside the row; the selected one is in the views already, and must not be covered.
                with v.VTooltip(
                    activator="parent",
                    location="end",
                    open_delay=400,
                    max_width=256,
                    eager=("false",),  # a picture is drawn when it is looked at
                    disabled=("row.name === selected",),
                    content_class="ct-peek",
                ):
                    html.Img(v_if="row.placed", src=(source("row.name"),), classes="ct-peek-picture", alt="")
                    html.Div("{{ row.hint }}")
        html.Div("The table of the 18 findings appears here.", v_else=True, classes="ct-hollow")


def _draft() -> None:
    with html.Div(classes="ct-block", v_if="draft", id="draft-block"):
        with html.Div(classes="ct-fold"):
            html.Button(
                "{{ draft_open ? '▾' : '▸' }} Draft report: research only, not read by a radiologist",
                click="draft_open = !draft_open",
                type="button",
                classes="ct-sort",
                id="open-draft",
                raw_attrs=[':aria-expanded="draft_open"'],
            )
            v.VBtn("Copy", title="Copy the draft", variant="tonal", size="small", id="copy-draft")
        html.Pre("{{ draft }}", v_if="draft_open", classes="ct-draft", id="draft")
