// Checks the simulator's OpenID Connect with a certified client of others: openid-client.
//
//     node check.mjs path/to/tenantry-simulator path/to/a/folder/with/node_modules
//
// Reads the tenant's metadata, sends an administrator to sign in, redeems the code with PKCE and lets the client judge
// the id_token, its signature included. Then the simulator forges tokens, and the client must refuse them.

import { execFileSync, spawn } from "node:child_process";
import { createHash, createPrivateKey, webcrypto, X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [binary, folder] = process.argv.slice(2);
const found = createRequire(join(resolve(folder), "from")).resolve("openid-client");
const openid = await import(pathToFileURL(found).href);

const TENANT = "7c1d94a2-6b3e-4f05-9a48-2d1e50c7b311";
const CLIENT = "5b7e21aa-90cf-4be6-a3c1-6d0f8e44d2b9";
const SECRET = "a secret & more";
const BACK = "https://collector.example/consent/callback/public";
const ADMIN = "admin@contoso.example";

function expect(what, condition, detail = "") {
  console.log(`${condition ? "ok  " : "FAIL"} ${what}`);
  if (!condition) throw new Error(`${what}: ${detail instanceof Error ? detail.stack : JSON.stringify(detail)}`);
}

// A certificate, and what proves the app with its key as Entra wants it.
async function certified(name) {
  const [key, certificate] = [join(name, "key.pem"), join(name, "certificate.pem")];
  execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=app", "-days", "30",
    "-keyout", key, "-out", certificate], { stdio: "pipe" });
  const der = new X509Certificate(readFileSync(certificate)).raw;
  const pkcs8 = createPrivateKey(readFileSync(key)).export({ type: "pkcs8", format: "der" });
  const algorithm = { name: "RSA-PSS", hash: "SHA-256" };
  const signing = await webcrypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]);
  const thumbprint = createHash("sha256").update(der).digest("base64url");
  const proof = openid.PrivateKeyJwt(signing, {
    [openid.modifyAssertion]: (header) => { header["x5t#S256"] = thumbprint; },
  });
  return { der, proof };
}

async function discover(authority, proof) {
  const config = await openid.discovery(new URL(`${authority}/${TENANT}/v2.0`), CLIENT, undefined, proof, {
    execute: [openid.allowInsecureRequests, openid.enableNonRepudiationChecks],
  });
  return config;
}

// Everything from the metadata to the judged id_token, as a web application does it.
async function signIn(authority, proof, mode = "query") {
  const config = await discover(authority, proof);
  const [verifier, nonce, state] = [openid.randomPKCECodeVerifier(), openid.randomNonce(), openid.randomState()];
  const url = openid.buildAuthorizationUrl(config, {
    redirect_uri: BACK,
    scope: "openid profile",
    response_mode: mode,
    state,
    nonce,
    code_challenge: await openid.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
  });
  const page = await (await fetch(url)).text();
  const form = page.match(/<form method="post" action="([^"]*)"/)[1].replaceAll("&amp;", "&");
  const chosen = page.match(/id="account-admin-contoso-example" name="(account)" value="([^"]*)"/);
  const body = new URLSearchParams([[chosen[1], chosen[2]]]);
  const answer = await fetch(new URL(form, url), { method: "POST", body, redirect: "manual" });
  const checks = { pkceCodeVerifier: verifier, expectedNonce: nonce, expectedState: state, idTokenExpected: true };
  if (mode === "query") {
    if (answer.status !== 302) throw new Error(`not sent back: ${await answer.text()}`);
    return openid.authorizationCodeGrant(config, new URL(answer.headers.get("location")), checks);
  }
  const inputs = (await answer.text()).matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)">/g);
  const posted = new URLSearchParams([...inputs].map(([, name, value]) => [name, value]));
  return openid.authorizationCodeGrant(config, new Request(BACK, { method: "POST", body: posted }), checks);
}

async function refusal(attempt) {
  try {
    await attempt();
  } catch (error) {
    return error;
  }
  return undefined;
}

async function check({ url, authority_url: authority }, certificate) {
  const config = await discover(authority, openid.ClientSecretPost(SECRET));
  expect("the metadata names its issuer", config.serverMetadata().issuer === `${authority}/${TENANT}/v2.0`);

  for (const [how, proof, mode] of [
    ["a secret", openid.ClientSecretPost(SECRET), "query"],
    ["a secret in the header", openid.ClientSecretBasic(SECRET), "query"],
    ["a certificate", certificate.proof, "query"],
    ["a secret, by form_post", openid.ClientSecretPost(SECRET), "form_post"],
  ]) {
    const tokens = await signIn(authority, proof, mode);
    const claims = tokens.claims();
    expect(`somebody signs in to an app with ${how}`, claims.tid === TENANT && claims.preferred_username === ADMIN, claims);
    expect("... and the answer has a lifetime", tokens.expiresIn() > 3000, tokens);
  }

  const control = async (command) => {
    const answer = await fetch(`${url}/_sim/control`, { method: "POST", body: JSON.stringify(command) });
    if (answer.status !== 200) throw new Error(await answer.text());
  };
  // Entra's rules for the issuer of a key, a tenant and a version are its own: the client cannot know them.
  const forgeries = {
    hmac_client_id: "alg", hmac_secret: "alg", hmac_public_key: "alg", unsigned: "alg", unsigned_but_sealed: "alg",
    unknown_key: "no applicable keys", carried_key: "no applicable keys", wrong_key: "signature", tampered: "signature",
    nonce: "nonce", no_nonce: "nonce", audience: "aud", expired: "exp", issuer: "iss", foreign_host: "iss",
    version1: "iss", tenant_template: "iss",
  };
  for (const [forgery, reason] of Object.entries(forgeries)) {
    await control({ set_entra: { forgery } });
    const error = await refusal(() => signIn(authority, openid.ClientSecretPost(SECRET)));
    expect(`the client refuses ${forgery}`, error?.cause?.message?.includes(reason), error);
  }
  await control({ set_entra: {} });
  await control({ roll_keys: { keep_old: false } });
  const tokens = await signIn(authority, openid.ClientSecretPost(SECRET));
  expect("a sound token of a new key is taken", tokens.claims().tid === TENANT, tokens);

  const wrong = await refusal(() => signIn(authority, openid.ClientSecretPost("guess")));
  expect("a wrong secret is an OAuth error", wrong instanceof openid.ResponseBodyError && wrong.error === "invalid_client", wrong);
}

const scratch = mkdtempSync(join(tmpdir(), "openid-"));
let simulator;
try {
  const certificate = await certified(scratch);
  const scenario = join(scratch, "scenario.json");
  writeFileSync(scenario, JSON.stringify({
    seed: 1,
    apps: [{
      client_id: CLIENT,
      certificates: [certificate.der.toString("base64")],
      secrets: [{ value: SECRET }],
      redirect_uris: [BACK],
    }],
    tenants: [{ id: TENANT, name: "Contoso", domain: "contoso.example" }],
  }));
  simulator = spawn(binary, ["--scenario", scenario, "--until-stdin-closes"], { stdio: ["pipe", "pipe", "inherit"] });
  const { value: line } = await createInterface({ input: simulator.stdout })[Symbol.asyncIterator]().next();
  await check(JSON.parse(line), certificate);
  console.log("openid-client takes the simulator for an OpenID provider");
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  simulator?.stdin.end();
  rmSync(scratch, { recursive: true });
}
