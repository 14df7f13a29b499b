//! The client of the admin API.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

use super::{Failure, Remote, exit, state_directory};
use crate::{
    api::model::ProblemDocument,
    material::{issuers, system_roots},
};

/// Where the admin API is when nothing says otherwise.
const DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9901);

/// An apply waits for DNS (2 s) and for every shard (5 s); the rest is reserve.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);

/// A question is answered at once; a large answer takes a moment.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Admin {
    /// Tried in this order.
    places: Vec<Place>,
}

/// Where an admin API may be.
struct Place {
    agent: ureq::Agent,
    /// As in `http://127.0.0.1:9901`.
    url: String,
    /// For people.
    address: String,
}

impl Admin {
    /// # Errors
    /// A file of the command line cannot be used.
    pub fn new(remote: &Remote) -> Result<Admin, Failure> {
        let state = state_directory(remote.state.as_ref());
        let local = state.read_admin_url();
        let mut places = Vec::new();
        if let Some(url) = &remote.admin {
            // The token in the state directory is for the gateway of this directory alone.
            let own = local.is_some_and(|(tls, address)| *url == self::url(tls, address));
            let token = if own { state.read_admin_token() } else { None };
            places.push(Place::new(url.clone(), remote, token, own)?);
        } else {
            if let Some((tls, address)) = local {
                places.push(Place::new(url(tls, address), remote, state.read_admin_token(), true)?);
            }
            // A --state that was given names one gateway; never talk to another instead.
            if remote.state.is_none() && local.is_none_or(|(_, address)| address != DEFAULT) {
                places.push(Place::new(url(false, DEFAULT), remote, None, false)?);
            }
        }
        Ok(Admin { places })
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let (address, text) = self.text("GET", path, &[], "")?;
        parse(&address, &text)
    }

    pub fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        let (address, text) = self.text("GET", path, query, "")?;
        parse(&address, &text)
    }

    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &str,
    ) -> Result<T, Failure> {
        let (address, text) = self.text("POST", path, query, body)?;
        parse(&address, &text)
    }

    /// A change that is made only while revision `over` runs.
    pub fn post_over<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &str,
        over: Option<u64>,
    ) -> Result<T, Failure> {
        let tag = over.map(|revision| format!("\"{revision}\""));
        let mut fields = vec![("Content-Type", "application/yaml")];
        fields.extend(tag.iter().map(|tag| ("If-Match", tag.as_str())));
        let answer = self.send("POST", path, query, &fields, body)?;
        parse(path, &answer.text)
    }

    pub fn get_text(&self, path: &str) -> Result<String, Failure> {
        Ok(self.text("GET", path, &[], "")?.1)
    }

    /// Any method, with fields beside the usual ones.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        fields: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer, Failure> {
        self.each(|place| {
            let method = ureq::http::Method::from_bytes(method.as_bytes());
            let method = method.map_err(|_| ureq::Error::BadUri("no such method".into()))?;
            let pairs =
                query.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
            let query = pairs.collect::<Vec<_>>().join("&");
            let joint = if query.is_empty() {
                ""
            } else if path.contains('?') {
                "&"
            } else {
                "?"
            };
            let mut request = ureq::http::Request::builder()
                .method(method)
                .uri(format!("{}{path}{joint}{query}", place.url));
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let request = request.body(body).map_err(ureq::Error::from)?;
            let agent = &place.agent;
            let request =
                agent.configure_request(request).timeout_global(Some(CHANGE_TIMEOUT)).build();
            agent.run(request)
        })
        .and_then(|(place, answer)| {
            let field = |name: &str| {
                let value = answer.headers().get(name)?.to_str().ok()?;
                Some(value.to_owned())
            };
            let (etag, link) = (field("etag"), field("link"));
            Ok(Answer { etag, link, text: read(&place.address, answer)? })
        })
    }

    fn text(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &str,
    ) -> Result<(String, String), Failure> {
        let (place, answer) = self.each(|place| {
            let url = format!("{}{path}", place.url);
            match method {
                "POST" => {
                    let request = place.agent.post(&url).query_pairs(query.iter().copied());
                    request.config().timeout_global(Some(CHANGE_TIMEOUT)).build().send(body)
                }
                _ => {
                    let request = place.agent.get(&url).query_pairs(query.iter().copied());
                    request.config().timeout_global(Some(ASK_TIMEOUT)).build().call()
                }
            }
        })?;
        Ok((place.address.clone(), read(&place.address, answer)?))
    }

    /// Asks one place after the other until something answers.
    fn each(
        &self,
        ask: impl Fn(&Place) -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<(&Place, ureq::http::Response<ureq::Body>), Failure> {
        let mut last = None;
        for place in &self.places {
            let address = &place.address;
            match ask(place) {
                Ok(answer) => return Ok((place, answer)),
                Err(ureq::Error::Timeout(_)) => {
                    return Err(Failure::new(
                        exit::UNREACHABLE,
                        format!(
                            "control at {address} does not answer; traffic is served all the same. \
                             Look at it with `ps -C sluice-control`, or kill it: it is started again"
                        ),
                    ));
                }
                Err(ureq::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::ConnectionRefused =>
                {
                    last = Some(format!("nothing listens on {address}"));
                }
                Err(error) => {
                    last = Some(format!("{address}: {error}"));
                    break;
                }
            }
        }
        let why = last.unwrap_or_else(|| "the state directory has no admin.addr".into());
        Err(Failure::new(
            exit::UNREACHABLE,
            format!(
                "control cannot be reached ({why}); is `sluice up` running? --admin ADDR or --state DIR \
                 says where"
            ),
        ))
    }
}

/// An answer with what beside its text matters.
pub struct Answer {
    pub etag: Option<String>,
    pub link: Option<String>,
    pub text: String,
}

impl Answer {
    /// Path and query of the next page.
    pub fn next(&self) -> Option<&str> {
        let (path, rest) = self.link.as_deref()?.strip_prefix('<')?.split_once('>')?;
        rest.contains("next").then_some(path)
    }
}

/// For a query; other than letters and digits as their bytes.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

fn url(tls: bool, address: SocketAddr) -> String {
    format!("{}://{address}", if tls { "https" } else { "http" })
}

/// What `--admin` may be: an address and port, or a URL without a path.
pub fn admin_url(text: &str) -> Result<String, String> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => return Err("expected http:// or https://".into()),
        None => ("http", text),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let port = rest.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let plain = !rest.contains(|c: char| c.is_whitespace() || "/?#@".contains(c));
    match plain && (port || (text.contains("://") && !rest.is_empty())) {
        true => Ok(format!("{scheme}://{rest}")),
        false => {
            Err("expected an address and port such as 127.0.0.1:9901, or https://HOST:PORT".into())
        }
    }
}

impl Place {
    /// `own`: the gateway of this machine's state directory.
    fn new(
        url: String,
        remote: &Remote,
        token: Option<String>,
        own: bool,
    ) -> Result<Place, Failure> {
        let address = url.strip_prefix("http://").unwrap_or(&url).to_owned();
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(2)));
        if url.starts_with("https://") {
            config = config.tls_config(tls(remote, own)?);
        }
        let config = match remote.token.clone().or(token) {
            None => config.build(),
            Some(token) => {
                let value = ureq::http::HeaderValue::from_str(&format!("Bearer {token}"));
                let value = value.map_err(|_| {
                    Failure::new(
                        exit::BAD_SPEC,
                        "--token: a token is one word without special characters",
                    )
                })?;
                let add =
                    move |mut request: ureq::http::Request<ureq::SendBody<'_>>,
                          next: ureq::middleware::MiddlewareNext<'_>| {
                        let name = ureq::http::header::AUTHORIZATION;
                        request.headers_mut().insert(name, value.clone());
                        next.handle(request)
                    };
                config.middleware(add).build()
            }
        };
        Ok(Place { agent: config.new_agent(), url, address })
    }
}

fn tls(remote: &Remote, own: bool) -> Result<TlsConfig, Failure> {
    let wrong = |what: &str, why: &dyn std::fmt::Display| {
        Failure::new(exit::BAD_SPEC, format!("{what}: {why}"))
    };
    let mut config = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let roots = match &remote.ca {
        Some(file) => {
            let name = file.display().to_string();
            issuers(&name).map_err(|(_, why)| wrong(&name, &why))?
        }
        // The address is from the state directory, which is ours alone: nobody else can have put
        // himself between. Its certificate is for a name that others use.
        None if own => {
            config = config.disable_verification(true);
            Vec::new()
        }
        None => system_roots().map_err(|why| wrong("--ca", &why))?,
    };
    let roots: Vec<_> = roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    config = config.root_certs(RootCerts::Specific(Arc::new(roots)));
    if let (Some(cert), Some(key)) = (&remote.cert, &remote.key) {
        let name = cert.display().to_string();
        let chain = issuers(&name).map_err(|(_, why)| wrong(&name, &why))?;
        let chain: Vec<_> = chain.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let name = key.display().to_string();
        let pem = std::fs::read(key).map_err(|error| wrong(&name, &error))?;
        let key = PrivateKey::from_pem(&pem).map_err(|error| wrong(&name, &error))?;
        config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
    }
    Ok(config.build())
}

fn read(address: &str, mut answer: ureq::http::Response<ureq::Body>) -> Result<String, Failure> {
    let status = answer.status();
    // Larger than any spec: a metrics page of 20,000 routes is about 60 MB.
    let text = answer.body_mut().with_config().limit(256 << 20).read_to_string()?;
    if status.is_success() {
        return Ok(text);
    }
    let code = if status.as_u16() == 422 { exit::BAD_SPEC } else { exit::FAILURE };
    let Ok(document) = serde_json::from_str::<ProblemDocument>(&text) else {
        return Err(not_ours(address, &format!("it answered {status}")));
    };
    let mut message = document.detail;
    for problem in &document.problems {
        let field = |name: &str| match &problem[name] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        message.push_str(&format!(
            "\n  {}:{}:{}: {}",
            field("file"),
            field("line"),
            field("column"),
            field("message")
        ));
    }
    Err(Failure::new(code, message))
}

fn not_ours(address: &str, why: &str) -> Failure {
    Failure::new(
        exit::FAILURE,
        format!(
            "what answers on {address} does not speak like this version's admin API ({why}); is it the \
             address of `admin` in `sluice up`'s first lines, and of the same version?"
        ),
    )
}

fn parse<T: DeserializeOwned>(address: &str, text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| not_ours(address, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_is_an_address_or_a_url() {
        for (text, url) in [
            ("127.0.0.1:9901", "http://127.0.0.1:9901"),
            ("[::1]:9901", "http://[::1]:9901"),
            ("gateway:9901", "http://gateway:9901"),
            ("https://gateway.example.com:9901/", "https://gateway.example.com:9901"),
            ("https://gateway.example.com", "https://gateway.example.com"),
        ] {
            assert_eq!(admin_url(text).as_deref(), Ok(url));
        }
        for wrong in
            ["", "gateway", ":1", "a:0", "a:b", "ftp://a:1", "https://", "http://a:1/x", "a@b:1"]
        {
            assert!(admin_url(wrong).is_err(), "{wrong}");
        }
    }
}
