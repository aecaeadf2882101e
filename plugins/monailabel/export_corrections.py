"""Writes what readers corrected as a datalist, for ``configs/finetune.json`` and ``configs/adapt.json``."""

import argparse
from pathlib import Path

from lib.compatibility import provide_storage_uids
from lib.options import KEYS, Options, use_bundle


def main() -> None:
    """Writes the file and says how many studies it holds; SystemExit with one line when it cannot."""
    parser = argparse.ArgumentParser("export_corrections.py", description=__doc__)
    parser.add_argument("output", type=Path, help="datalist to write, a JSON file")
    parser.add_argument("--studies", required=True, help="as the server was started with")
    parser.add_argument("--conf", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help=", ".join(KEYS))
    parser.add_argument("--val-split", type=float, default=0.2, help="share of the patients for validation; 0.2")
    args = parser.parse_args()
    try:
        options = Options.of(dict(args.conf))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    use_bundle(options.bundle)
    provide_storage_uids()

    from lib.corrections import CorrectionStore
    from lib.datastores import corrections_folder, folder_datastore
    from lib.scan_service import ScanService
    from lib.taught_studies import taught_studies, write_datalist
    from lib.usage_error import UsageError

    remote = args.studies.startswith(("http://", "https://"))
    if not remote and not Path(args.studies).is_dir():
        raise SystemExit(f"error: --studies {args.studies}: no such folder; give that of the server")
    corrections = CorrectionStore(corrections_folder(options, args.studies), ScanService(options).digest)
    try:
        datastore = None if remote else folder_datastore(options, Path(args.studies), read_only=True)
        counts = write_datalist(args.output, taught_studies(datastore, corrections), args.val_split)
    except (UsageError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{args.output}: {counts['training']} studies for training, {counts['validation']} for validation")


if __name__ == "__main__":
    main()
