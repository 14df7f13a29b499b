use std::net::Ipv4Addr;

use serde_json::json;

use super::*;
use crate::{
    keys::origin::{Origin, key_set, metadata, ok, status},
    spec::Fetch,
};

fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), work).await.expect("ends in time");
    });
}

fn names() -> Resolver {
    let home = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let metadata: IpAddr = "169.254.169.254".parse().unwrap();
    Resolver::of(&[
        ("id.test", &[home]),
        ("mixed.test", &[metadata, home]),
        ("metadata.test", &[metadata, "fe80::1".parse().unwrap()]),
        ("public.test", &["198.41.0.4".parse().unwrap()]),
    ])
}

fn fetcher() -> Fetcher {
    Fetcher::new(names(), &[])
}

fn keys_at(url: &str) -> Source {
    Source { url: url.into(), kind: SourceKind::Keys, fetch: private() }
}

fn private() -> Fetch {
    Fetch { ca: None, allow_private: true, timeout_ms: 2_000 }
}

fn document_at(url: &str, issuer: Option<&str>, keys: bool) -> Source {
    let kind = SourceKind::Discovery { issuer: issuer.map(Into::into), keys };
    Source { url: url.into(), kind, fetch: private() }
}

async fn error(source: &Source) -> FetchError {
    let answer = fetcher().fetch(source, None).await;
    assert_eq!(answer.keys, None);
    answer.error.expect("it is refused")
}

fn kids(answer: &Answer) -> Vec<String> {
    let keys = answer.keys.as_deref().unwrap_or_default();
    keys.iter().filter_map(|key| key.kid.clone()).collect()
}

#[test]
fn a_key_set_is_fetched_with_how_long_it_holds() {
    run(async {
        let origin = Origin::http(|path| match path {
            "/jwks" => ok("Cache-Control: public, max-age=600\r\nAge: 100\r\n", &key_set("a")),
            _ => ok("", "{\"keys\":[]}"),
        });
        let answer = fetcher().fetch(&keys_at(&origin.url("/jwks")), None).await;
        assert_eq!((kids(&answer), answer.life), (vec!["a".to_owned()], Duration::from_secs(500)));
        assert_eq!((answer.error, origin.hits()), (None, 1));
        let answer = fetcher().fetch(&keys_at(&origin.url("/none")), None).await;
        assert_eq!((answer.keys, answer.life), (Some(vec![]), USUAL_LIFE));
    });
}

#[test]
fn lives_have_bounds() {
    let life = |fields: &[(&'static str, &str)]| {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        life(&map).as_secs()
    };
    let control = "cache-control";
    assert_eq!(life(&[]), 3_600);
    assert_eq!(life(&[(control, "max-age=7200")]), 7_200);
    assert_eq!(life(&[(control, "MAX-AGE=\"7200\", must-revalidate")]), 7_200);
    assert_eq!(life(&[(control, "public"), (control, "max-age=120")]), 120);
    assert_eq!(life(&[(control, "max-age=0")]), 60);
    assert_eq!(life(&[(control, "max-age=99999999999")]), 86_400);
    assert_eq!(life(&[(control, "max-age=99999999999999999999999")]), 3_600);
    assert_eq!(life(&[(control, "max-age=-1")]), 3_600);
    assert_eq!(life(&[(control, "max-age=3600, no-cache")]), 60);
    assert_eq!(life(&[(control, "no-store")]), 60);
    assert_eq!(life(&[(control, "max-age=3600"), ("age", "3000")]), 600);
    assert_eq!(life(&[(control, "max-age=3600"), ("age", "9000")]), 60);
    assert_eq!(life(&[(control, "max-age=3600"), ("age", "x")]), 3_600);
}

#[test]
fn private_addresses_are_asked_only_where_the_spec_says_so() {
    run(async {
        let origin = Origin::http(|_| ok("", &key_set("a")));
        let port = origin.address.port();
        for host in ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "id.test"]
        {
            let url = format!("https://{host}:{port}/jwks");
            let public = Source { fetch: Fetch::default(), ..keys_at(&url) };
            let problem = error(&public).await.to_string();
            assert!(problem.contains("private address"), "{host}: {problem}");
        }
        assert_eq!(origin.hits(), 0);
        for host in ["127.0.0.1", "id.test", "mixed.test"] {
            let url = format!("http://{host}:{port}/jwks");
            let answer = fetcher().fetch(&keys_at(&url), None).await;
            assert_eq!((kids(&answer), answer.error), (vec!["a".to_owned()], None), "{host}");
        }
        let clear = Source { fetch: Fetch::default(), ..keys_at(&origin.url("/jwks")) };
        assert!(error(&clear).await.to_string().contains("only https://"));
        // Nor is a public address asked in the clear.
        let url = format!("http://public.test:{port}/");
        assert!(error(&keys_at(&url)).await.to_string().contains("http://"));
        assert!(error(&keys_at("http://1.1.1.1/")).await.to_string().contains("http://"));
        assert_eq!(origin.hits(), 3);
    });
}

#[test]
fn where_clouds_keep_secrets_is_never_asked() {
    run(async {
        for host in [
            "169.254.169.254",
            "0xa9fea9fe",
            "[::ffff:169.254.169.254]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "0.0.0.0",
            "[::]",
            "metadata.test",
        ] {
            for scheme in ["http", "https"] {
                let url = format!("{scheme}://{host}/latest/meta-data");
                let problem = error(&keys_at(&url)).await.to_string();
                assert!(problem.contains("never asked"), "{url}: {problem}");
            }
        }
        let unknown = error(&keys_at("https://unknown.test/")).await;
        assert_eq!(unknown, FetchError::Unreachable("unknown".into()));
        for url in ["ftp://id.test/", "file:///etc/passwd", "", "id.test"] {
            assert!(matches!(error(&keys_at(url)).await, FetchError::Unfit(_)), "{url}");
        }
    });
}

#[test]
fn redirects_are_not_followed_and_other_answers_are_no_key_set() {
    run(async {
        let secret = Origin::http(|_| ok("", &key_set("secret")));
        let target = secret.url("/jwks");
        let origin = Origin::http(move |path| match path {
            "/302" => {
                let head = format!(
                    "HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
                );
                Some(head.into_bytes())
            }
            "/500" => status("500 Internal Server Error"),
            "/204" => Some(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
            "/html" => ok("Content-Type: text/html\r\n", "<html><body>login</body></html>"),
            "/long" => ok("", &format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(1 << 20))),
            "/endless" => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                let chunk = format!("10000\r\n{}\r\n", " ".repeat(1 << 16));
                Some([head, &chunk.repeat(32)].concat().into_bytes())
            }
            "/cut" => Some(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\":[]}".to_vec()),
            "/garbage" => Some(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
            _ => None,
        });
        let at = async |path: &str| {
            let mut source = keys_at(&origin.url(path));
            source.fetch.timeout_ms = 500;
            error(&source).await
        };
        let redirected = at("/302").await;
        assert_eq!(redirected, FetchError::Status { status: 302 });
        assert!(redirected.to_string().contains("not followed"));
        assert_eq!(secret.hits(), 0);
        assert_eq!(at("/500").await, FetchError::Status { status: 500 });
        assert_eq!(at("/204").await, FetchError::Status { status: 204 });
        assert!(at("/html").await.to_string().contains("no JSON"));
        assert_eq!(at("/long").await, FetchError::TooLarge);
        assert_eq!(at("/endless").await, FetchError::TooLarge);
        assert!(matches!(at("/cut").await, FetchError::Unreachable(_)));
        assert!(matches!(at("/garbage").await, FetchError::Unreachable(_)));
        let hangs = at("/hangs").await;
        assert_eq!(hangs, FetchError::Unreachable("there is no answer in time".into()));
    });
}

#[test]
fn a_document_names_its_keys_and_must_be_the_issuers() {
    run(async {
        let origin = Origin::http(|_| None);
        let issuer = origin.url("/tenant");
        let document = format!("{issuer}/.well-known/openid-configuration");
        let jwks = origin.url("/keys");
        let serve = {
            let (issuer, jwks) = (issuer.clone(), jwks.clone());
            move |path: &str| match path {
                "/tenant/.well-known/openid-configuration" => ok(
                    "Cache-Control: max-age=7200\r\n",
                    &metadata(
                        &issuer,
                        &json!({
                            "jwks_uri": jwks,
                            "token_endpoint": "https://id.test/token",
                            "authorization_endpoint": "http://id.test/authorize",
                            "introspection_endpoint": "javascript:alert(1)",
                            "end_session_endpoint": "https://user:pw@id.test/",
                        }),
                    ),
                ),
                "/keys" => ok("Cache-Control: max-age=300\r\n", &key_set("a")),
                _ => status("404 Not Found"),
            }
        };
        origin.answer(serve);
        let source = document_at(&document, Some(&issuer), true);
        let answer = fetcher().fetch(&source, None).await;
        assert_eq!((kids(&answer), answer.life), (vec!["a".to_owned()], Duration::from_secs(300)));
        let known = Metadata {
            issuer: issuer.clone(),
            jwks_uri: Some(jwks),
            token_endpoint: Some("https://id.test/token".into()),
            authorization_endpoint: Some("http://id.test/authorize".into()),
            ..Metadata::default()
        };
        assert_eq!((answer.metadata.as_ref(), answer.error), (Some(&known), None));
        assert_eq!(origin.hits(), 2);
        // The keys alone.
        let answer = fetcher().fetch(&source, Some(&known)).await;
        assert_eq!((kids(&answer), answer.metadata), (vec!["a".to_owned()], None));
        assert_eq!(origin.hits(), 3);
        // The document alone.
        let answer = fetcher().fetch(&document_at(&document, None, false), None).await;
        assert_eq!((answer.metadata, answer.keys), (Some(known), None));
        assert_eq!(answer.life, Duration::from_secs(7_200));
        for other in ["https://id.test", &format!("{issuer}/")] {
            let problem = error(&document_at(&document, Some(other), true)).await.to_string();
            assert!(problem.contains("the document of"), "{problem}");
        }
    });
}

#[test]
fn what_a_document_names_is_judged_as_well() {
    run(async {
        let origin = Origin::http(|_| None);
        let document = origin.url("/.well-known/openid-configuration");
        for (jwks, wanted) in [
            (json!("http://169.254.169.254/latest"), "never asked"),
            (json!("https://metadata.test/"), "never asked"),
            (json!("http://public.test/keys"), "http://"),
            (json!("file:///etc/passwd"), "no jwks_uri"),
            (json!(null), "no jwks_uri"),
        ] {
            let body = metadata("i", &json!({ "jwks_uri": jwks, "token_endpoint": "https://t" }));
            origin.answer(move |_| ok("", &body));
            let answer = fetcher().fetch(&document_at(&document, Some("i"), true), None).await;
            let problem = answer.error.unwrap().to_string();
            assert!(problem.contains(wanted), "{jwks}: {problem}");
            // The rest of it is good all the same.
            let token = answer.metadata.and_then(|metadata| metadata.token_endpoint);
            assert_eq!(token.as_deref(), Some("https://t"));
        }
        for body in ["", "[]", "{}", "{\"issuer\":1}", "<html>"] {
            origin.answer(move |_| ok("", body));
            let problem = error(&document_at(&document, None, true)).await.to_string();
            assert!(problem.contains("no provider's metadata"), "{problem}");
        }
    });
}

#[test]
fn oauth_servers_have_their_document_elsewhere() {
    run(async {
        let origin = Origin::http(|_| None);
        let issuer = origin.url("/tenant/");
        let jwks = origin.url("/keys");
        let body = metadata(&issuer, &json!({ "jwks_uri": jwks }));
        origin.answer(move |path| match path {
            "/.well-known/oauth-authorization-server/tenant" => ok("", &body),
            "/keys" => ok("", &key_set("a")),
            _ => status("404 Not Found"),
        });
        let document = origin.url("/tenant/.well-known/openid-configuration");
        let answer = fetcher().fetch(&document_at(&document, Some(&issuer), true), None).await;
        assert_eq!((kids(&answer), answer.error), (vec!["a".to_owned()], None));
        // Whoever names a document means that one.
        let other = document_at(&origin.url("/document"), Some(&issuer), true);
        assert_eq!(error(&other).await, FetchError::Status { status: 404 });
    });
    assert_eq!(
        oauth_url("https://id.test").unwrap(),
        "https://id.test/.well-known/oauth-authorization-server"
    );
    assert_eq!(
        oauth_url("https://id.test:8443/a/b").unwrap(),
        "https://id.test:8443/.well-known/oauth-authorization-server/a/b"
    );
    assert_eq!(oauth_url("accounts.google.com"), None);
}

#[test]
fn services_prove_who_they_are() {
    run(async {
        let origin = Origin::https("id.test", |_| ok("", &key_set("a")));
        let other = Origin::https("id.test", |_| ok("", &key_set("other")));
        let (root, port) = (origin.root.clone().unwrap(), origin.address.port());
        let good = Fetcher::new(names(), std::slice::from_ref(&root));
        let answer = good.fetch(&keys_at(&format!("https://id.test:{port}/")), None).await;
        assert_eq!((kids(&answer), answer.error), (vec!["a".to_owned()], None));
        // Another name, another issuer, none at all.
        let answer = good.fetch(&keys_at(&format!("https://mixed.test:{port}/")), None).await;
        assert!(matches!(answer.error, Some(FetchError::Unreachable(_))));
        let url = format!("https://id.test:{}/", other.address.port());
        let answer = good.fetch(&keys_at(&url), None).await;
        let problem = answer.error.unwrap().to_string();
        assert!(problem.to_lowercase().contains("certificate"), "{problem}");
        let answer = fetcher().fetch(&keys_at(&format!("https://id.test:{port}/")), None).await;
        assert!(matches!(answer.error, Some(FetchError::Unreachable(_))));
        assert_eq!((origin.hits(), other.hits()), (1, 0));
    });
}
