//! XML as JSON.
//!
//! `<order id="7"><item>a</item><item>b</item><note/></order>` becomes
//! `{"order":{"@id":"7","item":["a","b"],"note":null}}`:
//!
//! - an element with nothing but text is that text, trimmed, as a string; an empty one is null;
//! - attributes are members `@name`, text beside attributes or elements is `#text`;
//! - elements of the same name become an array, at the place of the first one. Of a single one nobody can
//!   tell that there could be more: paths of those that always are arrays can be given;
//! - names keep their prefixes, and `xmlns` is an attribute like any other;
//! - comments and processing instructions go.
//!
//! A document type is refused: nothing is expanded but the five entities of XML and characters by number,
//! and nothing is fetched. The text must be UTF-8.

use std::collections::HashMap;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

use super::json::{Json, Text};
use super::project::Tree;
use crate::limits;

/// An element that is not closed yet.
#[derive(Default)]
struct Open {
    name: String,
    members: Vec<(Text<'static>, Json<'static>)>,
    places: HashMap<String, usize>,
    text: String,
}

impl Open {
    fn add(&mut self, name: String, value: Json<'static>) {
        match self.places.get(&name) {
            None => {
                self.members.push((Text::new(&name), value));
                self.places.insert(name, self.members.len() - 1);
            }
            Some(&at) => match &mut self.members[at].1 {
                // No value of an element is an array otherwise.
                Json::Array(items) => items.push(value),
                one => {
                    let first = std::mem::take(one);
                    *one = Json::Array(vec![first, value]);
                }
            },
        }
    }

    fn close(mut self) -> (String, Json<'static>) {
        let text = self.text.trim_matches([' ', '\t', '\r', '\n']);
        let value = match (self.members.is_empty(), text.is_empty()) {
            (true, true) => Json::Null,
            (true, false) => Json::string(text),
            (false, true) => Json::Object(self.members),
            (false, false) => {
                self.members.push((Text::new("#text"), Json::string(text)));
                Json::Object(self.members)
            }
        };
        (self.name, value)
    }
}

/// `arrays`: elements that are arrays even where there is one of them, by path from the root.
///
/// # Errors
/// What is wrong with the document.
pub fn read(bytes: &[u8], arrays: &Tree) -> Result<Json<'static>, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the XML is not UTF-8")?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::from_str(text);
    // What is above the root, and then each open element.
    let mut open: Vec<Open> = vec![Open::default()];
    let mut left = limits::JSON_VALUES;
    let mut count = |more: usize| {
        left = left.checked_sub(more).ok_or("there are too many elements in the XML")?;
        Ok::<(), &'static str>(())
    };
    loop {
        let outside = open.len() == 1;
        let Some(innermost) = open.last_mut() else { return Err(MALFORMED) };
        match reader.read_event().map_err(|_| MALFORMED)? {
            Event::Start(start) | Event::Empty(start)
                if outside && !innermost.members.is_empty() =>
            {
                let _ = start;
                return Err("there is more than one root in the XML");
            }
            Event::Start(start) => {
                let element = begin(&start)?;
                count(1 + element.members.len())?;
                if open.len() > limits::JSON_DEPTH {
                    return Err("the XML nests too deep");
                }
                open.push(element);
            }
            Event::Empty(start) => {
                let element = begin(&start)?;
                count(1 + element.members.len())?;
                let (name, value) = element.close();
                innermost.add(name, value);
            }
            Event::End(_) => {
                let Some(element) = open.pop() else { return Err(MALFORMED) };
                let (name, value) = element.close();
                open.last_mut().ok_or(MALFORMED)?.add(name, value);
            }
            Event::Text(text) => {
                let text = text.xml10_content();
                if outside && !text.trim_ascii().is_empty() {
                    return Err("there is text outside of the XML's root");
                }
                innermost.text.push_str(&text);
            }
            Event::CData(data) if !outside => innermost.text.push_str(&data.xml10_content()),
            Event::GeneralRef(reference) if !outside => {
                let c = match reference.resolve_char_ref().map_err(|_| MALFORMED)? {
                    Some(c) => c,
                    None => match &*reference.xml10_content() {
                        "amp" => '&',
                        "lt" => '<',
                        "gt" => '>',
                        "quot" => '"',
                        "apos" => '\'',
                        _ => return Err("there is an entity in the XML that is not known"),
                    },
                };
                innermost.text.push(c);
            }
            Event::CData(_) | Event::GeneralRef(_) => return Err(MALFORMED),
            Event::DocType(_) => return Err("a document type is not allowed in the XML"),
            Event::Decl(declaration) => {
                if let Some(encoding) = declaration.encoding() {
                    let encoding = encoding.map_err(|_| MALFORMED)?;
                    let known = ["utf-8", "utf8", "us-ascii"];
                    if !known.iter().any(|one| one.eq_ignore_ascii_case(&encoding)) {
                        return Err("the XML is not UTF-8");
                    }
                }
            }
            Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    let Some(root) = open.pop().filter(|root| open.is_empty() && !root.members.is_empty()) else {
        return Err(MALFORMED);
    };
    let mut value = Json::Object(root.members);
    arrays.each_named(&mut value, &mut |value| {
        if !matches!(value, Json::Array(_)) {
            let one = std::mem::take(value);
            *value = Json::Array(vec![one]);
        }
    });
    Ok(value)
}

const MALFORMED: &str = "this is no well-formed XML";

fn begin(start: &BytesStart<'_>) -> Result<Open, &'static str> {
    let mut open = Open { name: start.name().as_ref().to_string(), ..Open::default() };
    // Bounded before the reader compares each with all before it.
    for (at, attribute) in start.attributes().enumerate() {
        if at >= limits::XML_ATTRIBUTES {
            return Err("an element of the XML has too many attributes");
        }
        let attribute = attribute.map_err(|_| MALFORMED)?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0);
        let value = value.map_err(|_| "there is an entity in the XML that is not known")?;
        open.add(format!("@{}", attribute.key.as_ref()), Json::string(&value));
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(xml: &str, arrays: &[&str]) -> Result<String, &'static str> {
        let arrays = Tree::parse(arrays.iter().copied()).unwrap();
        read(xml.as_bytes(), &arrays).map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn elements_are_members() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?><!-- c -->
            <order id="7" x='&lt;&#65;"'><item>a</item><note/>
              <item p="1">b &amp; <![CDATA[<c>]]></item><item/></order>"#;
        let want = r##"{"order":{"@id":"7","@x":"<A\"","item":["a",{"@p":"1","#text":"b & <c>"},null],"note":null}}"##;
        assert_eq!(json(text, &[]).unwrap(), want);
        assert_eq!(json("<a> \n </a>", &[]).unwrap(), r#"{"a":null}"#);
        assert_eq!(json("<a>x<b/>y</a>", &[]).unwrap(), r##"{"a":{"b":null,"#text":"xy"}}"##);
        assert_eq!(
            json("<s:a xmlns:s='u'><s:b>1</s:b></s:a>", &[]).unwrap(),
            r#"{"s:a":{"@xmlns:s":"u","s:b":"1"}}"#
        );
    }

    #[test]
    fn what_is_an_array_can_be_said() {
        let text = "<l><i><x>1</x></i></l>";
        assert_eq!(json(text, &["l.i", "l.i.x"]).unwrap(), r#"{"l":{"i":[{"x":["1"]}]}}"#);
        assert_eq!(json("<l><i/><i/></l>", &["l.i"]).unwrap(), r#"{"l":{"i":[null,null]}}"#);
    }

    #[test]
    fn nothing_is_expanded() {
        for text in [
            r#"<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>"#,
            r#"<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>"#,
            "<a>&x;</a>",
            "<a b='&x;'/>",
        ] {
            assert!(json(text, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_or_too_large_is_refused() {
        for text in [
            "",
            " ",
            "x",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "</a>",
            "<a",
            "<a b/>",
            "<a b='1' b='2'/>",
            "<a>&#0;</a>",
            "<a>&#xd800;</a>",
            "<a>&</a>",
            "<a>&amp</a>",
            "<?xml version='1.0' encoding='latin1'?><a/>",
            "<![CDATA[x]]><a/>",
            "<a>]]></b>",
        ] {
            assert!(json(text, &[]).is_err(), "{text}: {:?}", json(text, &[]));
        }
        assert!(read(b"<a>\xff</a>", &Tree::default()).is_err());
        let deep = "<a>".repeat(limits::JSON_DEPTH + 1) + &"</a>".repeat(limits::JSON_DEPTH + 1);
        assert!(json(&deep, &[]).is_err());
        let many: String = (0..=limits::XML_ATTRIBUTES).map(|i| format!(" a{i}=''")).collect();
        assert!(json(&format!("<a{many}/>"), &[]).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[<>/a&;#x0-9'\"= !\\[\\]?-]{0,60}") {
            if let Ok(value) = read(text.as_bytes(), &Tree::default()) {
                prop_assert!(Json::parse(&value.to_vec()).is_ok());
            }
        }
    }
}
