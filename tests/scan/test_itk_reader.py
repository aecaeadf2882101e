"""NRRD and MetaImage of the field: number types that ITK is not built for, and headers that contradict the file."""

import zlib
from pathlib import Path

import nrrd
import numpy as np
import pytest

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan.load_scan import load_scan, read_volume


def metaimage(path: Path, array: np.ndarray, kind: str = "MET_SHORT", **fields: str) -> Path:
    """A .mha of HU in RAS; ``fields`` replace those of the header, an empty one is left out."""
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "-1 0 0 0 -1 0 0 0 1",
        "Offset": "60 60 -60",
        "ElementSpacing": "2 2.5 3",
        "DimSize": " ".join(map(str, array.shape)),
        "ElementType": kind,
    } | fields
    header["ElementDataFile"] = "LOCAL"  # The voxels follow this line.
    text = "".join(f"{name} = {value}\n" for name, value in header.items() if value)
    path.write_bytes(text.encode() + array.tobytes(order="F"))
    return path


@pytest.mark.parametrize(("kind", "dtype"), [("MET_LONG_LONG", "<i8"), ("MET_INT", "<i4"), ("MET_DOUBLE", "<f8")])
def test_hu_in_any_number_type_are_read_alike(tmp_path, hu, kind, dtype):
    scan = load_scan(metaimage(tmp_path / "a.mha", hu.astype(dtype), kind))
    np.testing.assert_array_equal(scan[0].numpy(), np.maximum(hu, -1024))


@pytest.mark.parametrize(
    ("damage", "size", "code"),
    [
        (lambda voxels, packed: packed, 0, None),
        (lambda voxels, packed: packed[:999] + b"\0" + packed[1000:], 0, "damaged-file"),
        (lambda voxels, packed: packed[:-1000], 0, "damaged-file"),
        (lambda voxels, packed: packed, -1000, "damaged-file"),
        (lambda voxels, packed: zlib.compress(voxels[:-5000]), 0, "damaged-file"),
        (lambda voxels, packed: zlib.compress(2 * voxels), 0, "header-contradicts-file"),
    ],
)
def test_packed_voxels_are_read_whole_or_refused(tmp_path, hu, damage, size, code):
    voxels = hu.tobytes(order="F")
    packed = damage(voxels, zlib.compress(voxels))
    path = metaimage(tmp_path / "a.mha", hu, CompressedData="True", CompressedDataSize=str(len(packed) + size))
    path.write_bytes(path.read_bytes().replace(voxels, packed))
    if code is None:
        np.testing.assert_array_equal(load_scan(path)[0].numpy(), np.maximum(hu, -1024))
    else:
        with pytest.raises(ScanError) as refused:
            load_scan(path)
        assert refused.value.code == code


def test_signed_bytes_are_refused_as_no_hu(tmp_path, hu):
    with pytest.raises(ScanError, match="expected a CT in HU"):
        load_scan(metaimage(tmp_path / "a.mha", np.clip(hu // 10, -128, 127).astype("i1"), "MET_CHAR"))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"DimSize": "64 52 40"}, "header-contradicts-file"),
        ({"DimSize": "60 52 44"}, "header-contradicts-file"),
        ({"DimSize": "64 52 4400"}, "damaged-file"),
        ({"DimSize": "64000 64000 64000"}, "damaged-file"),
        ({"HeaderSize": "8000"}, "header-contradicts-file"),
        ({"ElementType": "MET_NOTHING"}, "damaged-file"),
        ({"DimSize": "64 2288", "NDims": "2"}, "not-3d"),
        ({"ElementNumberOfChannels": "3"}, "not-3d"),
    ],
)
def test_a_metaimage_whose_header_cannot_be_is_refused(tmp_path, hu, fields, code):
    with pytest.raises(ScanError) as refused:
        load_scan(metaimage(tmp_path / "a.mha", hu, **fields))
    assert refused.value.code == code and "\n" not in str(refused.value)


def test_a_metaimage_without_directions_is_read_with_a_warning(tmp_path, hu):
    (warning,) = load_scan(metaimage(tmp_path / "a.mha", hu, TransformMatrix="")).meta["warnings"]
    assert "has no TransformMatrix" in warning


@pytest.mark.parametrize(
    ("sizes", "code"), [("64 52 40", "header-contradicts-file"), ("64 52 9999999", "damaged-file")]
)
def test_an_nrrd_whose_header_cannot_be_is_refused(tmp_path, hu, affine, sizes, code):
    header = {"space": "RAS", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3], "encoding": "raw"}
    nrrd.write(str(tmp_path / "a.nrrd"), hu, header, index_order="F")
    content = (tmp_path / "a.nrrd").read_bytes().replace(b"sizes: 64 52 44", f"sizes: {sizes}".encode())
    (tmp_path / "a.nrrd").write_bytes(content)
    with pytest.raises(ScanError) as refused:
        read_volume(tmp_path / "a.nrrd")
    assert refused.value.code == code


def test_an_nrrd_header_with_its_data_file_is_read(tmp_path, hu, affine):
    header = {"space": "RAS", "space directions": affine[:3, :3].T, "space origin": affine[:3, 3], "encoding": "gzip"}
    nrrd.write(str(tmp_path / "a.nhdr"), hu, header, detached_header=True, index_order="F")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nhdr").array, hu)


def test_other_files_of_the_folder_do_not_make_a_header_credible(tmp_path, hu):
    with (tmp_path / "other.raw").open("wb") as other:
        other.truncate(10**9)
    path = metaimage(tmp_path / "a.mha", hu, DimSize="3000 3000 90", CompressedData="True", CompressedDataSize="9999")
    with pytest.raises(ScanError) as refused:
        read_volume(path)
    assert refused.value.code == "damaged-file"


@pytest.mark.parametrize("named", ["gone.raw", "/etc/passwd", "../secret.raw", "LIST", "a_%02d.raw 1 44 1"])
def test_voxels_are_read_only_from_a_file_beside_the_header(tmp_path, hu, named):
    (tmp_path / "secret.raw").write_bytes(hu.tobytes(order="F"))
    (tmp_path / "scan").mkdir()
    header = metaimage(tmp_path / "scan" / "a.mha", hu).read_bytes()
    (tmp_path / "scan" / "a.mhd").write_bytes(header.partition(b"LOCAL")[0] + f"{named}\n".encode())
    with pytest.raises(ScanError, match=r"not beside it; put both into one folder \[no-data-file\]"):
        load_scan(tmp_path / "scan" / "a.mhd")
    text = f"NRRD0004\ntype: short\ndimension: 3\nspace: ras\nsizes: {' '.join(map(str, hu.shape))}\nencoding: raw\n"
    text += "space directions: (2,0,0) (0,2.5,0) (0,0,3)\nspace origin: (0,0,0)\nendian: little\n"
    (tmp_path / "scan" / "a.nhdr").write_text(f"{text}data file: {named}\n\n")
    with pytest.raises(ScanError, match=r"\[no-data-file\]"):
        load_scan(tmp_path / "scan" / "a.nhdr")
    (tmp_path / "scan" / "a.nhdr").write_text(f"{text}data file: beside.raw\n\n")
    (tmp_path / "secret.raw").rename(tmp_path / "scan" / "beside.raw")
    np.testing.assert_array_equal(load_scan(tmp_path / "scan" / "a.nhdr")[0].numpy(), np.maximum(hu, -1024))


@pytest.mark.parametrize(
    "last",
    [
        "ElementDataFile = ../secret.raw",
        "ElementDataFile: ../secret.raw\n",
        " ElementDataFile = ../secret.raw\n",
        "Comment = ElementDataFile\nElementDataFile = ../secret.raw\n",
        "Comment = " + 70_000 * "x" + "\nElementDataFile = ../secret.raw\n",
    ],
)
def test_no_spelling_of_a_metaimage_header_leads_out_of_its_folder(tmp_path, hu, last):
    (tmp_path / "secret.raw").write_bytes(hu.tobytes(order="F"))
    (tmp_path / "scan").mkdir()
    header = metaimage(tmp_path / "scan" / "a.mha", hu).read_bytes().partition(b"ElementDataFile")[0]
    (tmp_path / "scan" / "a.mhd").write_bytes(header + last.encode())
    with pytest.raises(ScanError, match=r"beside it|does not say where|more than 65,536"):
        load_scan(tmp_path / "scan" / "a.mhd")


@pytest.mark.parametrize("last", ["Data File: ../secret.raw\n", f"#{70_000 * 'x'}\ndata file: ../secret.raw\n"])
def test_no_spelling_of_an_nrrd_header_leads_out_of_its_folder(tmp_path, hu, last):
    (tmp_path / "secret.raw").write_bytes(hu.tobytes(order="F"))
    (tmp_path / "scan").mkdir()
    text = f"NRRD0004\nType: short\nDimension: 3\nSpace: RAS\nSizes: {' '.join(map(str, hu.shape))}\nEncoding: raw\n"
    text += "Space Directions: (2,0,0) (0,2.5,0) (0,0,3)\nSpace Origin: (0,0,0)\nEndian: little\n"
    (tmp_path / "scan" / "a.nhdr").write_text(text + last)
    with pytest.raises(ScanError, match=r"beside it|more than 65,536"):
        load_scan(tmp_path / "scan" / "a.nhdr")
    (tmp_path / "scan" / "a.nhdr").write_text(f"{text}Data File: near.raw\n")
    (tmp_path / "secret.raw").rename(tmp_path / "scan" / "near.raw")
    np.testing.assert_array_equal(load_scan(tmp_path / "scan" / "a.nhdr")[0].numpy(), np.maximum(hu, -1024))
