//! Long lists, a page at a time.

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, header::LINK},
};
use data_encoding::BASE64URL_NOPAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Problem;

/// Entries of a page that asks for no number.
const USUAL: u32 = 100;
/// Entries of a page at most.
pub const MOST: u32 = 1_000;

/// Which page.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Entries at most; without it 100.
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// Where to go on; from the Link field of the page before.
    #[schemars(length(max = 500))]
    pub cursor: Option<String>,
}

/// A checked [`PageQuery`].
pub struct Page {
    pub limit: usize,
    /// The last entry of the page before.
    pub after: Option<String>,
}

impl Page {
    pub fn new(limit: Option<u32>, cursor: Option<&str>) -> Result<Page, Problem> {
        let limit = limit.unwrap_or(USUAL);
        if !(1..=MOST).contains(&limit) {
            return Err(Problem::bad_request(format!("limit: expected a number from 1 to {MOST}")));
        }
        let wrong = || Problem::bad_request("cursor: it is none that this API gave");
        let after = match cursor.filter(|cursor| !cursor.is_empty()) {
            None => None,
            Some(cursor) => {
                let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).map_err(|_| wrong())?;
                Some(String::from_utf8(bytes).map_err(|_| wrong())?)
            }
        };
        Ok(Page { limit: limit as usize, after })
    }

    /// As [`Page::new`], of things with numbers.
    pub fn before(&self) -> Result<Option<u64>, Problem> {
        let wrong = |_| Problem::bad_request("cursor: it is none that this API gave");
        self.after.as_ref().map(|text| text.parse().map_err(wrong)).transpose()
    }

    /// The answer with these entries, of which there is one more than fits if another page follows.
    /// `last` is what the next page goes on after; `path` has the other parameters of the query.
    pub fn answer<T: Serialize>(
        &self,
        path: &str,
        mut entries: Vec<T>,
        last: impl Fn(&T) -> String,
    ) -> (HeaderMap, Json<Vec<T>>) {
        let mut headers = HeaderMap::new();
        if entries.len() > self.limit {
            entries.truncate(self.limit);
            if let Some(entry) = entries.last() {
                let cursor = BASE64URL_NOPAD.encode(last(entry).as_bytes());
                let joint = if path.contains('?') { '&' } else { '?' };
                let link =
                    format!("<{path}{joint}limit={}&cursor={cursor}>; rel=\"next\"", self.limit);
                if let Ok(link) = HeaderValue::from_str(&link) {
                    headers.insert(LINK, link);
                }
            }
        }
        (headers, Json(entries))
    }
}
