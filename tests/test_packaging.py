"""What a wheel brings beside its modules."""

from distutils.core import run_setup
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_wheel_has_every_file_that_the_package_reads(monkeypatch):
    monkeypatch.chdir(ROOT)
    build = run_setup("setup.py", stop_after="init").get_command_obj("build_py")
    build.ensure_finalized()
    packed = {ROOT / folder / name for _, folder, _, names in build.data_files for name in names}
    read = {*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("ssl_platform/**/*.yaml")}
    read |= {*ROOT.glob("ssl_platform/**/*.html"), *ROOT.glob("ssl_platform/**/*.html.j2")}
    read |= {*ROOT.glob("ssl_platform/**/*.css"), *ROOT.glob("ssl_platform/**/*.js")}
    assert len(read) > 50
    assert packed >= read
