//! A client that sends the bytes it is told to and reads answers strictly.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::message::{Framing, Head, Response};
use crate::stream::Stream;
use crate::wire::{Wire, WireError};
use crate::{Gateway, PATIENCE};

/// One connection to the gateway.
#[derive(Debug)]
pub struct Client {
    pub wire: Wire,
}

impl Client {
    /// Connects; a refused or unanswered connection fails the test.
    pub fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).unwrap_or_else(|e| panic!("connect to {address}: {e}"))
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        Ok(Client { wire: Wire::new(stream) })
    }

    /// Over a connection that stands, such as a TLS one.
    pub fn over(stream: impl Into<Stream>) -> Client {
        Client { wire: Wire::new(stream) }
    }

    /// Sends `bytes`. A peer that has gone away is not an error here: what it answered before that
    /// decides.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        let _ = self.wire.write(bytes.as_ref());
        self
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write(bytes)
    }

    /// Reads one response to a request that was not HEAD, skipping and keeping 1xx.
    pub fn response(&mut self) -> Result<Response, WireError> {
        self.response_to("GET")
    }

    /// Reads one response to a request of `method`.
    pub fn response_to(&mut self, method: &str) -> Result<Response, WireError> {
        let mut body = Vec::new();
        let mut response = self.stream_to(method, &mut |bytes| body.extend_from_slice(bytes))?;
        response.body = body;
        Ok(response)
    }

    /// As [`Client::response_to`], handing the body to `sink` instead of collecting it.
    pub fn stream_to(
        &mut self,
        method: &str,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Response, WireError> {
        let (interim, head) = self.final_head()?;
        let status = head.status().map_err(WireError::Malformed)?;
        let announced = head.announced().map_err(WireError::Malformed)?;
        let framing = if method == "HEAD" || status == 204 || status == 304 || status < 200 {
            Framing::None
        } else {
            announced.unwrap_or(Framing::UntilClose)
        };
        let mut trailers = Vec::new();
        match framing {
            Framing::None => {}
            Framing::Length(n) => self.wire.body(n, sink)?,
            Framing::Chunked => trailers = self.wire.chunked(sink)?,
            Framing::UntilClose => self.wire.until_close(sink)?,
        }
        Ok(Response { status, head, framing, body: Vec::new(), trailers, interim })
    }

    /// Reads heads up to the first that is final; 101 is final.
    pub fn final_head(&mut self) -> Result<(Vec<Head>, Head), WireError> {
        let mut interim = Vec::new();
        loop {
            let head = self.wire.head()?;
            let status = head.status().map_err(WireError::Malformed)?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(head);
            } else {
                return Ok((interim, head));
            }
        }
    }

    /// Sends a request and reads its answer; anything but a whole answer fails the test.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        let request = request.as_ref();
        let method: &str = if request.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
        self.send(request);
        self.response_to(method)
            .unwrap_or_else(|e| panic!("no answer to {:?}: {e:?}", crate::wire::lossy(request)))
    }

    /// Asserts that the gateway closes and sends nothing before that.
    #[track_caller]
    pub fn assert_closed(&mut self, why: &str) {
        if let Err(e) = self.wire.closes_within(PATIENCE) {
            panic!("{why}: the connection must close: {e}");
        }
    }

    /// Asserts that the connection still serves.
    #[track_caller]
    pub fn assert_alive(&mut self, why: &str) {
        self.send(get("/alive"));
        match self.response() {
            Ok(response) => assert_eq!(response.status, 200, "{why}: {:?}", response.head),
            Err(e) => panic!("{why}: the connection must stay usable: {e:?}"),
        }
    }

    /// Asserts that the connection either serves on or has closed: nothing stray, no hang.
    #[track_caller]
    pub fn assert_closed_or_alive(&mut self, why: &str) {
        self.send(get("/alive"));
        match self.response() {
            Ok(response) => assert_eq!(response.status, 200, "{why}: {:?}", response.head),
            Err(WireError::Closed | WireError::Reset(_)) => {}
            Err(e) => panic!("{why}: neither served nor closed: {e:?}"),
        }
    }

    /// Sets how long one message may take.
    pub fn patience(&mut self, patience: Duration) -> &mut Client {
        self.wire.patience(patience);
        self
    }
}

/// A plain GET of `target` at host `a.test`.
pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n")
}

/// Sends `bytes` on a new connection and returns every whole answer until the gateway closes or
/// falls silent for half a second.
pub fn exchange(gateway: &Gateway, bytes: &[u8]) -> Vec<Response> {
    let mut client = Client::connect(gateway.address());
    client.send(bytes);
    let mut answers = Vec::new();
    while let Ok(response) = client.response() {
        answers.push(response);
        client.patience(Duration::from_millis(500));
    }
    answers
}
