"""The content of one synthetic study: the renderer fills it, the report writer reads it."""

from dataclasses import dataclass, field


@dataclass
class Site:
    """One rendered occurrence of a finding.

    Attributes:
        finding: CT-RATE name of the finding.
        severity: 0 (barely visible) to 1 (gross).
        side: ``left``, ``right``, ``bilateral``, or None for a finding without a side.
        location: lobe, artery, node station or device position; None when diffuse.
        kind: subtype, such as ``solid`` for a nodule or ``pacemaker`` for a device.
        size_mm: largest diameter in mm, None when diffuse.
        count: occurrences that the site stands for.
        center_mm: centre of the rendered mask in world RAS mm.
        volume_ml: volume of the rendered mask in ml.
    """

    finding: str
    severity: float
    side: str | None = None
    location: str | None = None
    kind: str | None = None
    size_mm: float | None = None
    count: int = 1
    center_mm: tuple[float, float, float] | None = None
    volume_ml: float = 0.0


@dataclass
class Case:
    """One synthetic patient and scan with the rendered sites.

    Attributes:
        seed: seed of the data set.
        labels: 0 or 1 for each of the 18 findings, in the order of ``FINDINGS``.
        spacing: voxel size in mm, (3,).
        image_count: number of axial images; image 1 is the most superior one.
        z_bottom_mm: world z of the centre of the lowest axial image, in mm.
        noise_hu: standard deviation of the image noise in the middle of the chest.
        table, arms_up: whether a table is drawn, and whether the arms lie beside the head.
        series: series number of the axial reconstruction.
    """

    seed: int
    id: str
    labels: tuple[int, ...]
    sites: list[Site] = field(default_factory=list)
    sex: str = "F"
    age: int = 60
    contrast: bool = False
    noise_hu: float = 20.0
    table: bool = True
    arms_up: bool = True
    spacing: tuple[float, float, float] = (2.5, 2.5, 3.0)
    image_count: int = 100
    z_bottom_mm: float = 0.0
    series: int = 2

    def image_of_z(self, z_mm: float) -> int:
        """Number of the axial image nearest to a world z in mm; image 1 is at the top."""
        index = round((z_mm - self.z_bottom_mm) / self.spacing[2])
        return self.image_count - min(max(index, 0), self.image_count - 1)

    def z_of_image(self, image: int) -> float:
        """World z in mm of an axial image number."""
        return self.z_bottom_mm + (self.image_count - image) * self.spacing[2]
