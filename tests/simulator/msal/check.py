"""Checks the simulator's token endpoint with a real Entra client: MSAL Python.

    python check.py path/to/tenantry-simulator

Makes a certificate in a PKCS#12 file, registers it with a simulated app, and gets a token the way MSAL gets one from
login.microsoftonline.com: MSAL believes to talk to that host; only its HTTP client knows the simulator's address. The
token must open subscriptions/list; a certificate that is not registered must be refused with AADSTS700027. Then
somebody signs in, and MSAL redeems the code.
"""

import base64
import datetime
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.parse

import msal
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

TENANT = "7c1d94a2-6b3e-4f05-9a48-2d1e50c7b311"
OTHER_TENANT = "12e850f7-c3a9-4d62-8b17-f00d4a96e825"
CLIENT = "5b7e21aa-90cf-4be6-a3c1-6d0f8e44d2b9"
SECRET = "a secret & more"
SCOPE = ["https://manage.office.com/.default"]
AUTHORITY = "https://login.microsoftonline.com/"
PASSPHRASE = "correct horse"
REDIRECT = "https://collector.example/consent/callback/public"


class Rewired(requests.Session):
    """Sends what is meant for Microsoft's https hosts to the simulator and keeps the Host header."""

    def __init__(self, simulator):
        super().__init__()
        self.trust_env = False
        self.simulator = simulator
        self.seen = []

    def request(self, method, url, headers=None, **kwargs):
        host, _, path = url.removeprefix("https://").partition("/")
        assert url.startswith("https://"), f"MSAL was led away from https: {url}"
        self.seen.append(f"{method} {host}/{path}")
        headers = {**(headers or {}), "Host": host}
        kwargs.pop("verify", None)
        return super().request(method, f"{self.simulator}/{path}", headers=headers, timeout=20, **kwargs)


class Identity:
    """A key and its certificate, also as a PKCS#12 file."""

    def __init__(self, folder, name):
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.timezone.utc)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .sign(self.key, hashes.SHA256())
        )
        self.pfx = folder / f"{name}.pfx"
        encryption = serialization.BestAvailableEncryption(PASSPHRASE.encode())
        self.pfx.write_bytes(
            pkcs12.serialize_key_and_certificates(name.encode(), self.key, self.certificate, None, encryption)
        )

    def der(self):
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def by_pfx(self):
        """PS256 with x5t#S256."""
        return {"private_key_pfx_path": str(self.pfx), "passphrase": PASSPHRASE}

    def by_sha1_thumbprint(self):
        """RS256 with x5t."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {"private_key": pem.decode(), "thumbprint": self.certificate.fingerprint(hashes.SHA1()).hex()}


def application(simulator, credential, tenant=TENANT):
    http = Rewired(simulator)
    app = msal.ConfidentialClientApplication(
        CLIENT,
        authority=AUTHORITY + tenant,
        client_credential=credential,
        instance_discovery=False,
        http_client=http,
    )
    return app, http


def expect(what, condition, detail=""):
    print(f"{'ok  ' if condition else 'FAIL'} {what}")
    if not condition:
        sys.exit(f"{what}: {detail}")


def check(simulator, registered, stranger):
    app, http = application(simulator, registered.by_pfx())
    token = app.acquire_token_for_client(scopes=SCOPE)
    expect("a token for a PKCS#12 certificate", "access_token" in token, token)
    expect("its life is that of the scenario", token["expires_in"] == 3599, token)
    expect("MSAL asked the host it knows", all("login.microsoftonline.com/" in line for line in http.seen), http.seen)
    requested = len(http.seen)
    again = app.acquire_token_for_client(scopes=SCOPE)
    expect("the second time from MSAL's cache", again["access_token"] == token["access_token"] and len(http.seen) == requested)

    listing = requests.get(
        f"{simulator}/api/v1.0/{TENANT}/activity/feed/subscriptions/list",
        params={"PublisherIdentifier": TENANT},
        headers={"Authorization": f"{token['token_type']} {token['access_token']}"},
        timeout=20,
    )
    expect("the token opens subscriptions/list", listing.status_code == 200, listing.text)
    expect("the subscription is listed", listing.json()[0]["contentType"] == "Audit.Exchange", listing.text)

    app, _ = application(simulator, registered.by_sha1_thumbprint())
    token = app.acquire_token_for_client(scopes=SCOPE)
    expect("a token for RS256 and a SHA-1 thumbprint", "access_token" in token, token)

    app, _ = application(simulator, SECRET)
    token = app.acquire_token_for_client(scopes=SCOPE)
    expect("a token for a client secret", "access_token" in token, token)

    for what, credential, code in [
        ("a certificate that is not registered", stranger.by_pfx(), 700027),
        ("a wrong secret", "guess", 7000215),
    ]:
        app, _ = application(simulator, credential)
        refusal = app.acquire_token_for_client(scopes=SCOPE)
        expect(f"{what} is refused with AADSTS{code}", refusal.get("error_codes") == [code], refusal)
        expect("... as invalid_client with a correlation id",
               refusal["error"] == "invalid_client" and bool(refusal["correlation_id"]), refusal)

    app, _ = application(simulator, registered.by_pfx(), OTHER_TENANT)
    refusal = app.acquire_token_for_client(scopes=SCOPE)
    expect("a tenant without consent is refused with AADSTS7000229", refusal.get("error_codes") == [7000229], refusal)

    check_sign_in(simulator, registered)

    try:
        application(simulator, registered.by_pfx(), "00000000-0000-0000-0000-0000000000ff")[0].acquire_token_for_client(SCOPE)
        expect("an unknown tenant is refused", False)
    except ValueError:
        expect("an unknown tenant is refused when MSAL reads its metadata", True)


def check_sign_in(simulator, registered):
    """An administrator signs in; MSAL redeems the code with PKCE and its certificate."""
    app, http = application(simulator, registered.by_pfx(), "organizations")
    flow = app.initiate_auth_code_flow(scopes=[], redirect_uri=REDIRECT)
    url = flow["auth_uri"].replace(AUTHORITY, f"{simulator}/")
    sent_back = requests.post(url, data={"account": "admin@contoso.example"}, allow_redirects=False, timeout=20)
    location = urllib.parse.urlsplit(sent_back.headers["Location"])
    expect("the browser is sent back", location.netloc == "collector.example", sent_back.headers)
    answer = dict(urllib.parse.parse_qsl(location.query))
    result = app.acquire_token_by_auth_code_flow(flow, answer)
    claims = result.get("id_token_claims", {})
    expect("MSAL learns who signed in", claims.get("tid") == TENANT, result)
    expect("... from a token of that tenant's issuer", claims["iss"] == f"{AUTHORITY}{TENANT}/v2.0", claims)
    account = app.get_accounts()[0]
    renewed = app.acquire_token_silent(["https://manage.office.com/ActivityFeed.Read"], account, force_refresh=True)
    expect("... and gets other tokens by the refresh token", bool(renewed) and "access_token" in renewed, renewed)
    try:
        refusal = app.acquire_token_by_auth_code_flow(flow, answer)
    except ValueError as error:
        refusal = {"error": str(error)}
    expect("the code is good once", 54005 in refusal.get("error_codes", []), refusal)


def main():
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        registered, stranger = Identity(folder, "registered"), Identity(folder, "stranger")
        scenario = folder / "scenario.json"
        scenario.write_text(json.dumps({
            "seed": 1,
            "apps": [{
                "client_id": CLIENT,
                "certificates": [base64.b64encode(registered.der()).decode()],
                "secrets": [{"value": SECRET}],
                "redirect_uris": [REDIRECT],
            }],
            "tenants": [
                {"id": TENANT, "name": "Contoso", "domain": "contoso.example", "subscribed": ["Audit.Exchange"]},
                {"id": OTHER_TENANT, "name": "Fabrikam", "domain": "fabrikam.example", "consents": []},
            ],
        }))
        command = [binary, "--scenario", str(scenario), "--until-stdin-closes"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as simulator:
            try:
                check(json.loads(simulator.stdout.readline())["url"], registered, stranger)
            finally:
                simulator.stdin.close()
                simulator.wait(timeout=20)
    print(f"MSAL {msal.__version__} takes the simulator for Entra")


if __name__ == "__main__":
    main()
