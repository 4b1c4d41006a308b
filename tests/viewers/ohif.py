"""OHIF as its npm package ships it, served on loopback in front of an Orthanc."""

import http.server
import json
import shutil
import subprocess
import tarfile
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

PACKAGE = "@ohif/app@3.13.2"

SETTINGS = """window.config = {
  routerBasename: null,
  extensions: [],
  modes: [],
  customizationService: {},
  showStudyList: true,
  maxNumberOfWebWorkers: 1,
  showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: false,
  strictZSpacingForVolumeViewport: true,
  investigationalUseDialog: { option: 'never' },
  defaultDataSourceName: 'dicomweb',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
    sourceName: 'dicomweb',
    configuration: {
      friendlyName: 'Orthanc',
      name: 'orthanc',
      wadoUriRoot: '/dicom-web',
      qidoRoot: '/dicom-web',
      wadoRoot: '/dicom-web',
      qidoSupportsIncludeField: false,
      imageRendering: 'wadors',
      thumbnailRendering: 'wadors',
      enableStudyLazyLoad: true,
      supportsFuzzyMatching: false,
      supportsWildcard: true,
      bulkDataURI: { enabled: true },
      omitQuotationForMultipartRequest: true,
    },
  }],
};
"""


def fetch_ohif(folder: Path) -> Path:
    """The package's built pages, from the npm registry; fetched once into `folder`."""
    pages = folder / "package" / "dist"
    if pages.is_dir():
        return pages
    folder.mkdir(parents=True, exist_ok=True)
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is needed to fetch OHIF")
    packed = subprocess.run(
        [npm, "pack", "--json", PACKAGE], cwd=folder, capture_output=True, text=True, check=True
    )
    with tarfile.open(folder / json.loads(packed.stdout)[0]["filename"]) as archive:
        archive.extractall(folder, filter="data")
    return pages


class Ohif:
    """A web server for the pages that hands everything below /dicom-web on to Orthanc."""

    def __init__(self, pages: Path, orthanc_http: int) -> None:
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), _handler(pages, f"http://127.0.0.1:{orthanc_http}")
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Of the start page, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Ohif":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(  # noqa: C901 - the standard library wants a class for every pair of addresses
    pages: Path, orthanc: str
) -> type[http.server.SimpleHTTPRequestHandler]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words: object) -> None:
            super().__init__(*words, directory=str(pages))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/dicom-web"):
                self._hand_on()
            elif path == "/app-config.js":
                self._say(SETTINGS.encode(), "text/javascript")
            elif not (pages / path.lstrip("/")).is_file():
                # Addresses within the application are its own business.
                self._say((pages / "index.html").read_bytes(), "text/html")
            else:
                super().do_GET()

        def end_headers(self) -> None:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

        def log_message(self, *words: object) -> None:
            """Keep quiet: the browser asks for hundreds of files."""

        def _hand_on(self) -> None:
            accept = {"Accept": self.headers.get("Accept", "*/*")}
            # S310: the scheme is in the address that this module was given
            request = urllib.request.Request(f"{orthanc}{self.path}", headers=accept)  # noqa: S310
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                    self._say(answer.read(), answer.headers["Content-Type"], answer.status)
            except urllib.error.HTTPError as refusal:
                self._say(refusal.read(), "text/plain", refusal.code)

        def _say(self, body: bytes, content_type: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
