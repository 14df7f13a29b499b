//! The client of the admin API.

use std::{net::SocketAddr, time::Duration};

use serde::de::DeserializeOwned;

use super::{Failure, Remote, exit, state_directory};
use crate::api::model::ProblemDocument;

/// Where the admin API is when nothing says otherwise.
const DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9901);

/// An apply waits for DNS (2 s) and for every shard (5 s); the rest is reserve.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);

/// A question is answered at once; a large answer takes a moment.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

pub struct Admin {
    agent: ureq::Agent,
    /// Tried in this order.
    addresses: Vec<SocketAddr>,
}

impl Admin {
    pub fn new(remote: &Remote) -> Admin {
        let addresses = match remote.admin {
            Some(address) => vec![address],
            None => {
                let mut addresses: Vec<_> =
                    state_directory(remote.state.as_ref()).read_admin().into_iter().collect();
                // A --state that was given names one gateway; never talk to another instead.
                if remote.state.is_none() && !addresses.contains(&DEFAULT) {
                    addresses.push(DEFAULT);
                }
                addresses
            }
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(2)))
            .build();
        Admin { agent: config.new_agent(), addresses }
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let (address, text) = self.text(("GET", None), path, &[], "")?;
        parse(address, &text)
    }

    pub fn get_with<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        let (address, text) = self.text(("GET", None), path, query, "")?;
        parse(address, &text)
    }

    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &str,
    ) -> Result<T, Failure> {
        self.post_over(path, query, body, None)
    }

    /// A change that is made only while revision `over` runs.
    pub fn post_over<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &str,
        over: Option<u64>,
    ) -> Result<T, Failure> {
        let (address, text) = self.text(("POST", over), path, query, body)?;
        parse(address, &text)
    }

    pub fn get_text(&self, path: &str) -> Result<String, Failure> {
        Ok(self.text(("GET", None), path, &[], "")?.1)
    }

    fn text(
        &self,
        (method, over): (&str, Option<u64>),
        path: &str,
        query: &[(&str, &str)],
        body: &str,
    ) -> Result<(SocketAddr, String), Failure> {
        let mut last = None;
        for address in &self.addresses {
            let url = format!("http://{address}{path}");
            let answer = match method {
                "POST" => {
                    let mut request = self.agent.post(&url).query_pairs(query.iter().copied());
                    if let Some(revision) = over {
                        request = request.header("If-Match", format!("\"{revision}\""));
                    }
                    request.config().timeout_global(Some(CHANGE_TIMEOUT)).build().send(body)
                }
                _ => {
                    let request = self.agent.get(&url).query_pairs(query.iter().copied());
                    request.config().timeout_global(Some(ASK_TIMEOUT)).build().call()
                }
            };
            match answer {
                Ok(answer) => return Ok((*address, read(*address, answer)?)),
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

fn read(
    address: SocketAddr,
    mut answer: ureq::http::Response<ureq::Body>,
) -> Result<String, Failure> {
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

fn not_ours(address: SocketAddr, why: &str) -> Failure {
    Failure::new(
        exit::FAILURE,
        format!(
            "what answers on {address} does not speak like this version's admin API ({why}); is it the \
             address of `admin` in `sluice up`'s first lines, and of the same version?"
        ),
    )
}

fn parse<T: DeserializeOwned>(address: SocketAddr, text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| not_ours(address, &error.to_string()))
}
