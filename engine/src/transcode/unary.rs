//! One unary method that the gateway calls itself, with JSON.

use std::sync::Arc;

use super::frames;
use super::json::{Printing, Reading};
use super::proto::{Method, Proto};
use super::status::http_status;

/// A method of a set of descriptors.
#[derive(Clone, Debug)]
pub struct Unary {
    proto: Arc<Proto>,
    place: usize,
}

impl PartialEq for Unary {
    fn eq(&self, other: &Unary) -> bool {
        Arc::ptr_eq(&self.proto, &other.proto) && self.place == other.place
    }
}

/// The JSON is not of the message, or the bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit;

impl Unary {
    /// `name`: `pkg.Service/Method`.
    ///
    /// # Errors
    /// There is no such method, or it is a stream.
    pub fn find(proto: Arc<Proto>, name: &str) -> Result<Unary, String> {
        let path = format!("/{}", name.trim_start_matches('/'));
        let place = proto.methods.iter().position(|method| *method.path == *path);
        let Some(place) = place else {
            let known: Vec<&str> =
                proto.methods.iter().take(8).map(|one| one.path.trim_start_matches('/')).collect();
            return Err(format!(
                "there is no method `{name}`; expected one as {}",
                known.join(", ")
            ));
        };
        let unary = Unary { proto, place };
        match unary.method() {
            Some(Method { client_streaming: false, server_streaming: false, .. }) => Ok(unary),
            _ => Err(format!("`{name}` is a stream; only unary methods can be called here")),
        }
    }

    fn method(&self) -> Option<&Method> {
        self.proto.methods.get(self.place)
    }

    /// `/pkg.Service/Method`
    pub fn path(&self) -> &str {
        self.method().map_or("/", |method| &method.path)
    }

    /// The body of a call with that message.
    ///
    /// # Errors
    /// The JSON is not of the message.
    pub fn request(&self, json: &[u8]) -> Result<Vec<u8>, Unfit> {
        let method = self.method().ok_or(Unfit)?;
        let schema = &self.proto.schema;
        let reading = Reading { schema, ignore_unknown: false, any_case: false };
        let mut out = Vec::with_capacity(json.len() + frames::HEAD);
        frames::write(&mut out, |out| reading.message(json, method.input, out))
            .map_err(|_| Unfit)?;
        Ok(out)
    }

    /// The message of an answer's body, as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn response(&self, body: &[u8]) -> Result<Vec<u8>, Unfit> {
        let method = self.method().ok_or(Unfit)?;
        let message = frames::only(body, body.len()).map_err(|_| Unfit)?;
        let schema = &self.proto.schema;
        let printing = Printing {
            schema,
            always: true,
            enum_numbers: false,
            proto_names: false,
            pretty: false,
        };
        let mut out = Vec::with_capacity(message.len() * 2);
        printing.message(message, method.output, &mut out).map_err(|_| Unfit)?;
        Ok(out)
    }

    /// The HTTP status that a call's status is as.
    pub fn status(code: u8) -> u16 {
        http_status(code)
    }
}
