//! The longest texts that operations take in their query and fields, as the OpenAPI document says.

use std::sync::Arc;

use axum::{
    extract::Query,
    http::{HeaderMap, Uri},
};

use super::{Problem, operation::Parameter};

/// The bounds of an operation. Cheap to clone.
#[derive(Clone)]
pub struct Bounds(Arc<[Bound]>);

struct Bound {
    name: String,
    in_query: bool,
    /// In characters.
    most: usize,
}

impl Bounds {
    pub fn of(parameters: &[Parameter]) -> Bounds {
        let bound = |one: &Parameter| {
            let most = usize::try_from(one.schema.get("maxLength")?.as_u64()?).ok()?;
            let in_query = one.place == "query";
            (in_query || one.place == "header").then(|| Bound {
                name: one.name.clone(),
                in_query,
                most,
            })
        };
        Bounds(parameters.iter().filter_map(bound).collect())
    }

    /// # Errors
    /// Which parameter is too long.
    pub fn judge(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        // What cannot be read is for the handler to say.
        let pairs = match uri.query() {
            Some(_) => Query::<Vec<(String, String)>>::try_from_uri(uri).map(|query| query.0),
            None => Ok(Vec::new()),
        };
        let pairs = pairs.unwrap_or_default();
        for bound in self.0.iter() {
            let longest = match bound.in_query {
                true => {
                    let values = pairs.iter().filter(|(name, _)| *name == bound.name);
                    values.map(|(_, value)| value.chars().count()).max()
                }
                false => headers.get_all(&bound.name).iter().map(|value| value.len()).max(),
            };
            if let Some(longest) = longest.filter(|longest| *longest > bound.most) {
                return Err(Problem::bad_request(format!(
                    "`{}` has {longest} characters; at most {} are taken",
                    bound.name, bound.most
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_longer_than_the_document_says_is_refused() {
        let parameter = |name: &str, place, most: u32| Parameter {
            name: name.into(),
            place,
            required: false,
            about: String::new(),
            schema: json!({"type": "string", "maxLength": most}),
        };
        let bounds = Bounds::of(&[
            parameter("message", "query", 3),
            parameter("If-Match", "header", 2),
            parameter("name", "path", 1),
        ]);
        let judge = |query: &str, field: &str| {
            let uri = format!("/v1/x{query}").parse().unwrap();
            let fields = [("if-match".parse().unwrap(), field.parse().unwrap())];
            bounds.judge(&uri, &fields.into_iter().collect()).is_ok()
        };
        assert!(judge("", "") && judge("?message=%C3%BC%C3%BCa&other=long", "12"));
        assert!(!judge("?message=abcd", "") && !judge("?message=a&message=abcd", ""));
        assert!(!judge("?message=abc", "123"));
        assert!(judge("?message=%ZZ", ""));
    }
}
