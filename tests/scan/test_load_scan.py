"""Reading one chest CT: what is accepted is HU with true geometry, what is refused says why in one line."""

import locale
import struct
import zipfile
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan import storage
from bundle.ctfindings.scan.load_scan import load_scan, read_volume
from bundle.ctfindings.scan.slice_grid import even_slices


def save(path: Path, array: np.ndarray, affine: np.ndarray | None) -> Path:
    image = nib.Nifti1Image(array, affine)
    nib.save(image, path)
    return path


def value_at(scan, point_mm) -> float:
    """HU of the voxel nearest to a world point."""
    index = np.linalg.inv(np.asarray(scan.affine)) @ [*point_mm, 1]
    x, y, z = np.round(index[:3]).astype(int)
    return float(scan[0, x, y, z])


def in_ras(scan) -> np.ndarray:
    """Voxels with the axes along right to left, back to front, feet to head."""
    return nib.as_closest_canonical(nib.Nifti1Image(np.asarray(scan[0]), np.asarray(scan.affine))).get_fdata()


def test_a_nifti_is_read_as_hu_with_its_affine(nifti, hu, affine):
    scan = load_scan(nifti)
    assert scan.shape == (1, *hu.shape) and str(scan.dtype) == "torch.float32"
    np.testing.assert_array_equal(scan[0].numpy(), np.maximum(hu, -1024))
    np.testing.assert_allclose(scan.affine, affine)
    assert scan.meta["source_format"] == "nifti" and scan.meta["warnings"] == []
    assert tuple(scan.meta["spatial_shape"]) == hu.shape and scan.meta["filename_or_obj"] == str(nifti)


def test_slope_and_intercept_of_a_nifti_are_applied_once(tmp_path, hu, affine):
    path = save(tmp_path / "scan.nii", ((hu + 1024) // 2).astype(np.int16), affine)
    stored = bytearray(path.read_bytes())
    stored[112:120] = struct.pack("<ff", 2, -1024)  # scl_slope and scl_inter
    path.write_bytes(stored)
    assert np.abs(load_scan(path)[0].numpy() - hu).max() <= 1


def test_a_last_axis_of_one_is_dropped(tmp_path, hu, affine):
    assert load_scan(save(tmp_path / "a.nii.gz", hu[..., None], affine)).shape == (1, *hu.shape)


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "left-anterior-superior"])
def test_nrrd_geometry_is_read_in_every_space(tmp_path, hu, affine, space):
    signs = {"left-posterior-superior": (-1, -1, 1), "RAS": (1, 1, 1), "left-anterior-superior": (-1, 1, 1)}[space]
    world = np.diag(signs) @ affine[:3]
    header = {"space": space, "space directions": world[:, :3].T, "space origin": world[:, 3]}
    nrrd.write(str(tmp_path / "a.nrrd"), hu, header, index_order="F")
    scan = load_scan(tmp_path / "a.nrrd")
    np.testing.assert_allclose(scan.affine, affine)
    np.testing.assert_array_equal(scan[0].numpy(), hu)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd"])
def test_a_scan_of_more_voxels_than_allowed_is_refused_by_its_header(tmp_path, hu, affine, monkeypatch, name):
    if name == "a.nrrd":
        header = {"space": "RAS", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3]}
        nrrd.write(str(tmp_path / name), hu, header, index_order="F")
    else:
        save(tmp_path / name, hu, affine)
    monkeypatch.setattr(storage, "MAX_VOXELS", 64 * 52 * 44)
    assert load_scan(tmp_path / name).shape == (1, 64, 52, 44)
    monkeypatch.setattr(storage, "MAX_VOXELS", 64 * 52 * 44 - 1)
    with pytest.raises(ScanError, match="has 64 x 52 x 44 voxels; at most 146,431 are allowed") as refused:
        load_scan(tmp_path / name)
    assert refused.value.code == "too-large"


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
def test_every_number_type_of_an_nrrd_is_read(tmp_path, affine, dtype):
    values = np.random.default_rng(0).integers(0, 100, (5, 6, 7)).astype(dtype)
    header = {"space": "RAS", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3]}
    for encoding in ("raw", "gzip", "ascii"):
        nrrd.write(str(tmp_path / "a.nrrd"), values, header | {"encoding": encoding}, index_order="F")
        volume = read_volume(tmp_path / "a.nrrd")
        np.testing.assert_array_equal(volume.array, values)
        np.testing.assert_allclose(volume.affine, affine)


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd"])
def test_what_itk_and_pynrrd_write_is_read_alike(tmp_path, hu, affine, suffix):
    import itk

    oblique = affine.copy()
    oblique[:3, :3] = affine[:3, :3] @ np.array([[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, 1]])
    lps = np.diag([-1, -1, 1]) @ oblique[:3]
    spacing = np.linalg.norm(lps[:, :3], axis=0)
    image = itk.image_from_array(np.ascontiguousarray(hu.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:, :3] / spacing)))
    itk.imwrite(image, str(tmp_path / f"itk.{suffix}"), compression=suffix == "nrrd")
    header = {"space": "LPS", "space directions": lps[:, :3].T, "space origin": lps[:, 3], "encoding": "gzip"}
    nrrd.write(str(tmp_path / "pynrrd.nrrd"), hu, header, index_order="F")
    for name in (f"itk.{suffix}", "pynrrd.nrrd"):
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.array, hu)
        np.testing.assert_allclose(volume.affine, oblique, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "kind", "read"),
    [
        ((5, 6, 7, 1), "list", True),
        ((5, 6, 7, 1), None, True),
        ((5, 6, 7, 2), "list", False),
        ((3, 5, 6, 7), "RGB-color", False),
        ((3, 5, 6, 7), "vector", False),
    ],
)
def test_only_an_nrrd_of_one_3d_scan_is_read(tmp_path, affine, shape, kind, read):
    last = shape[0] == 5
    directions, kinds = affine[:3, :3].T, ["domain"] * 3
    directions = np.vstack([directions, [[np.nan] * 3]] if last else [[[np.nan] * 3], directions])
    header = {"space": "RAS", "space directions": directions, "space origin": affine[:3, 3]}
    if kind:
        header["kinds"] = [*kinds, kind] if last else [kind, *kinds]
    values = np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)
    nrrd.write(str(tmp_path / "a.nrrd"), values, header, index_order="F")
    if read:
        volume = read_volume(tmp_path / "a.nrrd")
        np.testing.assert_array_equal(volume.array, values[..., 0])
        np.testing.assert_allclose(volume.affine, affine)
    else:
        with pytest.raises(ScanError, match="expected one 3D scan, found an image of shape"):
            read_volume(tmp_path / "a.nrrd")


def test_a_metaimage_is_read(tmp_path, hu, affine):
    lps = affine.copy()
    lps[:2] *= -1
    direction = np.diag([-1, -1, 1])
    text = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        f"TransformMatrix = {' '.join(map(str, direction.ravel()))}\nOffset = {' '.join(map(str, lps[:3, 3]))}\n"
        f"ElementSpacing = 2 2.5 3\nDimSize = {' '.join(map(str, hu.shape))}\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "a.mha").write_bytes(text.encode() + hu.tobytes(order="F"))
    scan = load_scan(tmp_path / "a.mha")
    np.testing.assert_allclose(scan.affine, affine)
    np.testing.assert_array_equal(scan[0].numpy(), hu)


@pytest.mark.parametrize("padding", [-2048, -3024, -8192])
def test_padding_outside_the_reconstructed_circle_becomes_air(tmp_path, hu, affine, padding):
    padded = hu.copy()
    padded[:6] = padding
    scan = load_scan(save(tmp_path / "a.nii.gz", padded, affine))
    assert float(scan.min()) == -1024 and scan.meta["warnings"] == []


# --- DICOM ---


@pytest.mark.parametrize("slope", [1.0, 0.5])
def test_a_dicom_folder_is_sorted_and_rescaled_once(tmp_path, hu, affine, write_dicom, slope):
    scan = load_scan(write_dicom(tmp_path / "series", hu, affine, slope=slope))
    np.testing.assert_allclose(in_ras(scan), hu, atol=1e-3)
    assert value_at(scan, (affine @ [22, 36, 34, 1])[:3]) == hu[22, 36, 34]
    assert scan.meta["source_format"] == "dicom" and scan.meta["warnings"] == []


def test_a_zip_reads_as_its_folder_and_no_name_in_it_leaves_the_temporary_folder(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "series", hu, affine)
    outside = tmp_path / "outside.txt"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"deep/{file.name}")
        archive.writestr("../outside.txt", "text")
        archive.writestr(str(outside), "text")
    scan = load_scan(tmp_path / "a.zip")
    np.testing.assert_array_equal(scan.numpy(), load_scan(folder).numpy())
    assert not outside.exists()


@pytest.fixture
def locale_kept():
    """The writer of ITK's DICOM files leaves the locale "C" behind, and all that is read by the locale afterwards is
    read as ASCII.
    """
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


def test_jpeg_lossless_is_decoded_and_rescaled_once(tmp_path, hu, affine, write_dicom, locale_kept):
    import itk

    before = locale.setlocale(locale.LC_ALL)
    folder = write_dicom(tmp_path / "series", hu, affine)
    packed = tmp_path / "packed"
    packed.mkdir()
    for file in folder.iterdir():
        reader_io, writer_io = itk.GDCMImageIO.New(), itk.GDCMImageIO.New()
        reader = itk.ImageFileReader[itk.Image[itk.SS, 3]].New(FileName=str(file), ImageIO=reader_io)
        reader.Update()
        writer_io.SetKeepOriginalUID(True)
        writer_io.SetCompressor("JPEG")
        writer = itk.ImageFileWriter[itk.Image[itk.SS, 3]].New(
            Input=reader.GetOutput(), FileName=str(packed / f"{file.name}.dcm")
        )
        writer.SetImageIO(writer_io)
        writer.SetUseInputMetaDataDictionary(False)
        writer_io.SetMetaDataDictionary(reader_io.GetMetaDataDictionary())
        writer.UseCompressionOn()
        writer.Update()
    syntax = {str(pydicom.dcmread(file).file_meta.TransferSyntaxUID) for file in packed.iterdir()}
    assert syntax == {"1.2.840.10008.1.2.4.70"}
    locale.setlocale(locale.LC_ALL, before)
    np.testing.assert_allclose(in_ras(load_scan(packed)), hu, atol=1e-3)
    assert locale.setlocale(locale.LC_ALL) == before, "reading leaves the locale as it was"


def test_the_longest_axial_series_is_taken_and_the_others_named_without_the_patient(tmp_path, hu, affine, write_dicom):
    write_dicom(tmp_path / "a", hu, affine, number=3, description="Chest thin")
    write_dicom(tmp_path / "b", hu, affine, number=2, description="Chest thick", keep=range(0, 44, 4))
    write_dicom(
        tmp_path / "c",
        hu,
        affine,
        number=1,
        description="Topogram",
        image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
        keep=[0],
    )
    twice = np.concatenate([hu, hu], axis=2)
    write_dicom(tmp_path / "d", twice, affine, number=9, description="Sagittal", orientation=(0, 1, 0, 0, 0, -1))
    write_dicom(
        tmp_path / "e", twice, affine, number=8, description="MIP", image_type=("DERIVED", "SECONDARY", "AXIAL", "MIP")
    )
    scan = load_scan(tmp_path)
    assert scan.shape[3] == 44
    (warning,) = scan.meta["warnings"]
    for part in (
        "series 3 (44 images) was read",
        "series 2 (11 images)",
        "series 1 (1 images)",
        "series 8 (88 images)",
    ):
        assert part in warning
    # What stands in a description was typed by somebody, and may be a name.
    assert not [
        word
        for word in ("Doe", "4711", "Chest", "Topogram", "Sagittal", "MIP")
        if word in warning.replace(str(tmp_path), "")
    ]


DAMAGES = {
    "of no known kind": (b"\x20\x00\x13\x00IS", b"\x20\x00\x13\x00I\xff"),
    "not a number": (b"\x28\x00\x30\x00DS\x08\x002.5\\2.0 ", b"\x28\x00\x30\x00DS\x08\x002x5\\2.0 "),
}


def damage(file: Path, name: str) -> None:
    before, after = DAMAGES[name]
    content = file.read_bytes()
    assert content.count(before) == 1
    file.write_bytes(content.replace(before, after))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_header_is_passed_over_with_a_warning(tmp_path, hu, affine, write_dicom, name):
    folder = write_dicom(tmp_path / "a", hu, affine)
    (last,) = folder.glob("*_043")
    damage(last, name)
    scan = load_scan(folder)
    np.testing.assert_allclose(in_ras(scan), hu[:, :, :43], atol=1e-3)
    (warning,) = scan.meta["warnings"]
    assert "contains 1 files that cannot be opened or have a damaged header" in warning and last.name not in warning


def test_a_series_of_damaged_headers_is_refused(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine, keep=range(3))
    for file in folder.iterdir():
        damage(file, "of no known kind")
    with pytest.raises(
        ScanError, match=r"contains 3 files .* have a damaged header .* and no CT images; check the perm"
    ):
        load_scan(folder)


def test_slices_that_cannot_be_opened_are_missed_with_a_warning(tmp_path, hu, affine, write_dicom, monkeypatch):
    folder = write_dicom(tmp_path / "a", hu, affine)
    read = Path.open

    def refuse(path: Path, *args, **settings):
        if path.name[-3:] < "010":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **settings)

    monkeypatch.setattr(Path, "open", refuse)  # The rights of a file do not stop root.
    scan = load_scan(folder)
    np.testing.assert_allclose(in_ras(scan), hu[:, :, 10:], atol=1e-3)
    (warning,) = scan.meta["warnings"]
    assert "contains 10 files that cannot be opened or have a damaged header (PermissionError)" in warning


@pytest.mark.parametrize("stored", [{"affine": np.diag([2, 2.5, 3, 1])}, {"axes": "LPS", "spacing_mm": [2, 2.5, 3]}])
def test_a_geometry_that_is_given_does_not_refer_to_dicom_images(tmp_path, hu, affine, write_dicom, stored):
    folder = write_dicom(tmp_path / "a", hu, affine)
    assert load_scan(folder, {"slope": 1.0}).meta["source_images"] is not None
    assert load_scan(folder, stored).meta["source_images"] is None


def test_missing_slices_are_interpolated_with_a_warning(tmp_path, hu, affine, write_dicom):
    smooth = np.broadcast_to(np.linspace(-700, 250, 44), hu.shape).round().astype(np.int16)
    scan = load_scan(write_dicom(tmp_path / "a", smooth, affine, keep=[z for z in range(44) if z not in (10, 20)]))
    assert scan.shape[3] == 44 and "3.0 to 6.0 mm apart" in scan.meta["warnings"][0]
    np.testing.assert_allclose(in_ras(scan), smooth, atol=1)


def test_uneven_slices_are_interpolated_at_their_depth():
    depth = np.array([0.0, 2, 4, 6, 9, 10])
    positions = np.stack([np.zeros(6), np.zeros(6), depth], axis=1)
    slices = np.tile(depth[:, None, None], (1, 2, 2)).astype(np.float32)
    even, step, warnings = even_slices(slices, positions, np.array([0.0, 0, 1]), "a")
    np.testing.assert_allclose(even[:, 0, 0], [0, 2, 4, 6, 8, 10], atol=1e-5)
    assert step[2] == 2 and len(warnings) == 1


def test_a_file_without_a_geometry_of_its_own_is_read_with_a_warning(tmp_path, hu):
    large = np.tile(hu, [-(-160 // size) for size in hu.shape]).astype(np.int16)
    nib.save(nib.Nifti1Image(large, np.eye(4)), tmp_path / "bare.nii.gz")
    assert "has no geometry of its own" in load_scan(tmp_path / "bare.nii.gz").meta["warnings"][0]
    told = {"affine": np.diag([1.0, 1.0, 1.5, 1.0]).tolist()}
    assert load_scan(tmp_path / "bare.nii.gz", told).meta["warnings"] == []


def test_gantry_tilt_is_kept_in_the_affine_and_noted(tmp_path, hu, affine, write_dicom):
    scan = load_scan(write_dicom(tmp_path / "a", hu, affine, tilt_degrees=15))
    assert "tilted by 15.0 degrees" in scan.meta["warnings"][0]
    rows = np.asarray(scan.affine)[:3, 1] / 2.5
    np.testing.assert_allclose(np.abs(rows), [0, np.cos(np.radians(15)), np.sin(np.radians(15))], atol=1e-6)


def test_a_gap_too_wide_to_fill_is_refused(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine, keep=[z for z in range(44) if not 10 <= z < 20])
    with pytest.raises(ScanError, match=r"images are missing: a gap of 33\.0 mm"):
        load_scan(folder)


def test_two_images_at_one_place_are_refused(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine, keep=range(6))
    images = sorted(folder.iterdir())
    extra = pydicom.dcmread(images[2])
    extra.SOPInstanceUID = extra.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    pydicom.dcmwrite(folder / "extra", extra)
    with pytest.raises(ScanError, match="at the same position"):
        load_scan(folder)


def test_one_dicom_file_is_refused_with_the_advice_to_give_its_folder(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine)
    with pytest.raises(ScanError, match="give the folder or a zip"):
        load_scan(next(folder.iterdir()))


def test_too_few_images_are_refused_and_named(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine, keep=range(4))
    with pytest.raises(ScanError, match=r"no axial CT series of at least 5 images \(found: series 3 \(4 images\)\)"):
        load_scan(folder)


def test_an_image_with_lost_pixels_is_refused_by_its_number(tmp_path, hu, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", hu, affine)
    victim = next(file for file in folder.iterdir() if file.name.endswith("_007"))
    victim.write_bytes(victim.read_bytes()[:-3000])
    with pytest.raises(ScanError, match="image 8 of series 3 \\(44 images\\) cannot be decoded"):
        load_scan(folder)


# --- real scans ---


@pytest.mark.parametrize(
    "name", ["imlab_id001_ct_128x128x64", "ts_cardiac_cta_crop_1p5", "ibsi_candat_pat_2_ct", "cip_ct-64"]
)
def test_a_real_scan_is_read(shared_data, name):
    assert load_scan(shared_data / "ct" / f"{name}.nii.gz").meta["warnings"] == []


@pytest.mark.parametrize("name", ["vtkjs_lidc2_uint8_256x256x133", "imlab_id001_lungmask_128x128x64", "cip_lm-64"])
def test_a_real_file_that_is_not_in_hu_is_refused(shared_data, name):
    with pytest.raises(ScanError, match="expected a CT in HU"):
        load_scan(shared_data / "ct" / f"{name}.nii.gz")


def test_a_real_series_of_jpeg_2000_is_read_and_its_short_cover_noted(shared_data):
    scan = load_scan(shared_data / "dicom" / "ts_example_20_slices.zip")
    assert scan.shape == (1, 512, 512, 20) and "covers only 40 mm" in scan.meta["warnings"][0]
