//! Webhooks: validated when they are registered, notified of what becomes available, and disabled when they are deaf.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tenantry_simulator::{BlobSpec, Cloud, ContentType, Der, HookChange, Scenario, Tenant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::client::{APP, Client, SECRET, TENANT};

const EXCHANGE: ContentType = ContentType::Exchange;
const START: &str = "subscriptions/start?contentType=Audit.Exchange";

/// A webhook of a test's: what it is sent, and what it answers.
struct Listener {
    address: SocketAddr,
    certificate: Vec<u8>,
    status: Arc<AtomicU16>,
    heard: Mutex<Receiver<(String, Value)>>,
    _runtime: Runtime,
}

impl Listener {
    fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = channel();
        let status = Arc::new(AtomicU16::new(200));
        let answer = Arc::clone(&status);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let (mut text, mut piece) = (String::new(), vec![0; 65_536]);
                let body = loop {
                    let read = stream.read(&mut piece).await.unwrap();
                    assert!(read > 0, "the request broke off: {text}");
                    text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
                    let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                    let length = head.split("Content-Length: ").nth(1).unwrap().split("\r\n").next().unwrap();
                    if body.len() == length.parse::<usize>().unwrap() {
                        break (head.to_owned(), serde_json::from_str(body).unwrap());
                    }
                };
                let status = answer.load(Ordering::SeqCst);
                let _ = tell.send(body);
                stream.write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            }
        });
        let certificate = certificate.der().to_vec();
        Self { address, certificate, status, heard: Mutex::new(told), _runtime: runtime }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/hook", self.address.port())
    }

    fn next(&self) -> (String, Value) {
        self.heard.lock().unwrap().recv_timeout(Duration::from_secs(20)).expect("nothing came")
    }

    fn body(&self) -> String {
        json!({"webhook": {"address": self.url(), "authId": "s3same", "expiration": ""}}).to_string()
    }
}

fn cloud(listener: &Listener) -> Cloud {
    let mut tenant = Tenant::new(TENANT, "Contoso").domain("contoso.example");
    tenant.subscribed = vec![EXCHANGE];
    let mut scenario = Scenario::new(5).app(tenantry_simulator::App::new(APP).secret(SECRET)).tenant(tenant);
    scenario.service.notices.roots = vec![Der(listener.certificate.clone())];
    scenario.service.notices.retry_ms = 10;
    scenario.service.start_cooldown_s = 0;
    Cloud::start(scenario).unwrap()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn a_webhook_is_validated_and_told_of_what_becomes_available() {
    let listener = Listener::start();
    let cloud = cloud(&listener);
    let client = Client::new(&cloud, TENANT);
    cloud.control().add_blobs(BlobSpec::new(TENANT, EXCHANGE).created_ago(Duration::from_mins(1)));
    assert_eq!(client.post(START, &listener.body()).json()["webhook"]["status"], "enabled");
    let (head, body) = listener.next();
    let code = body["validationCode"].as_str().unwrap();
    assert!(head.starts_with("POST /hook HTTP/1.1") && head.contains("Webhook-AuthID: s3same"), "{head}");
    assert!(head.contains(&format!("Webhook-ValidationCode: {code}")), "{head}");
    assert_eq!(client.post(START, &listener.body()).code(), "AF20024");

    let number = cloud.control().add_blobs(BlobSpec::new(TENANT, EXCHANGE))[0];
    let blob = cloud.ledger().blobs[usize::try_from(number).unwrap()].clone();
    let (head, body) = listener.next();
    assert!(head.contains("Webhook-AuthID: s3same") && !head.contains("Validation"), "{head}");
    assert_eq!(body.as_array().unwrap().len(), 1, "what was there before is no news: {body}");
    assert_eq!(body[0]["contentId"], blob.content_id);
    assert_eq!((body[0]["tenantId"].clone(), body[0]["clientId"].clone()), (json!(TENANT), json!(APP)));
    assert!(body[0]["contentUri"].as_str().unwrap().ends_with(&blob.content_id));

    until("the history", || {
        let path = "subscriptions/notifications?contentType=Audit.Exchange";
        let history = client.get(&format!("{}/{path}", client.root())).json();
        history[0]["notificationStatus"] == "success" && history[0]["contentId"] == blob.content_id
    });
    let hook = cloud.control().hook(TENANT, EXCHANGE).unwrap();
    assert_eq!((hook.address, hook.auth_id.as_deref()), (listener.url(), Some("s3same")));
    for (change, status) in [(HookChange::Expire, json!("expired")), (HookChange::Null, Value::Null)] {
        cloud.control().change_hook(TENANT, EXCHANGE, change);
        let list = client.get(&format!("{}/subscriptions/list", client.root())).json();
        let of = list.as_array().unwrap().iter().find(|of| of["contentType"] == "Audit.Exchange").unwrap();
        assert_eq!((of["status"].clone(), of["webhook"]["status"].clone()), (json!("enabled"), status));
    }
}

#[test]
fn a_webhook_that_does_not_answer_is_not_registered_and_one_that_stops_is_disabled() {
    let listener = Listener::start();
    let cloud = cloud(&listener);
    let client = Client::new(&cloud, TENANT);
    listener.status.store(404, Ordering::SeqCst);
    let refused = client.post(START, &listener.body());
    assert_eq!((refused.status, refused.code().as_str()), (400, "AF20021"));
    assert!(cloud.control().hook(TENANT, EXCHANGE).is_none(), "the subscription is as it was");
    for elsewhere in ["https://hook.example/", "https://192.0.2.1/", "http://localhost:1/"] {
        let body = json!({"webhook": {"address": elsewhere}}).to_string();
        assert_eq!(client.post(START, &body).code(), "AF20021", "{elsewhere}");
    }
    listener.status.store(200, Ordering::SeqCst);
    assert_eq!(client.post(START, &listener.body()).status, 200);

    listener.status.store(500, Ordering::SeqCst);
    for _ in 0..3 {
        let failed = |client: &Client| {
            let path = "subscriptions/notifications?contentType=Audit.Exchange";
            let history = client.get(&format!("{}/{path}", client.root())).json();
            history.as_array().unwrap().iter().filter(|entry| entry["notificationStatus"] == "failed").count()
        };
        let before = failed(&client);
        cloud.control().add_blobs(BlobSpec::new(TENANT, EXCHANGE));
        until("three attempts", || failed(&client) == before + 3);
    }
    until("the hook is disabled", || cloud.control().hook(TENANT, EXCHANGE).unwrap().status == "disabled");
    // A further start enables it again.
    listener.status.store(200, Ordering::SeqCst);
    assert_eq!(client.post(START, &listener.body()).json()["webhook"]["status"], "enabled");
    // What is lost leaves no trace, and does not come later.
    listener.heard.lock().unwrap().try_iter().for_each(drop);
    cloud.control().set_notices(true, Duration::ZERO);
    cloud.control().add_blobs(BlobSpec::new(TENANT, EXCHANGE));
    until("the loss", || cloud.control().hook(TENANT, EXCHANGE).unwrap().told == 1);
    cloud.control().set_notices(false, Duration::from_millis(50));
    let number = cloud.control().add_blobs(BlobSpec::new(TENANT, EXCHANGE))[0];
    let blob = cloud.ledger().blobs[usize::try_from(number).unwrap()].clone();
    let (_, body) = listener.next();
    assert_eq!((body.as_array().unwrap().len(), body[0]["contentId"].clone()), (1, json!(blob.content_id)));
}
