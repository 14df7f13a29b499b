//! Any rules for requests and answers.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::text;
use crate::snapshot::*;

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..3)
}

fn names() -> impl Strategy<Value = NameRules> {
    (pairs(), pairs(), vec(text(), 0..3), pairs(), pairs())
        .prop_map(|(rename, copy, remove, set, add)| NameRules { rename, copy, remove, set, add })
}

fn attributes() -> impl Strategy<Value = CookieAttributes> {
    let site = select(vec![SameSite::Strict, SameSite::Lax, SameSite::None]);
    let texts = (option::of(text()), option::of(text()));
    let flags = any::<(Option<bool>, Option<bool>, Option<i64>)>();
    (texts, flags, option::of(site)).prop_map(
        |((domain, path), (secure, http_only, max_age_s), same_site)| CookieAttributes {
            domain,
            path,
            secure,
            http_only,
            same_site,
            max_age_s,
        },
    )
}

fn request() -> impl Strategy<Value = RequestShape> {
    let path = prop_oneof![
        text().prop_map(PathShape::Whole),
        (text(), text()).prop_map(|(pattern, with)| PathShape::Replace { pattern, with })
    ];
    let cookies = (pairs(), vec(text(), 0..3));
    let texts = (option::of(text()), option::of(text()));
    (texts, option::of(path), names(), names(), cookies).prop_map(
        |((method, host), path, query, headers, (set, remove))| {
            let cookies = CookieRules { set, remove };
            RequestShape { method, host, path, query, headers, cookies }
        },
    )
}

fn response() -> impl Strategy<Value = ResponseShape> {
    let status = any::<[u16; 3]>();
    let status = status.prop_map(|[first, last, to]| StatusRule { first, last, to });
    let new = (text(), text(), attributes()).prop_map(|(name, value, attributes)| NewCookie {
        name,
        value,
        attributes,
    });
    let rewrite = (option::of(text()), attributes())
        .prop_map(|(name, attributes)| CookieRewrite { name, attributes });
    let cookies = (vec(new, 0..3), vec(text(), 0..3), vec(rewrite, 0..3))
        .prop_map(|(set, remove, rewrite)| AnswerCookies { set, remove, rewrite });
    (vec(status, 0..3), names(), cookies, any::<Option<u64>>()).prop_map(
        |(status, headers, cookies, max_body_bytes)| ResponseShape {
            status,
            headers,
            cookies,
            max_body_bytes,
        },
    )
}

fn answer() -> impl Strategy<Value = OwnAnswer> {
    let body = prop_oneof![
        Just(StaticBody::Empty),
        text().prop_map(StaticBody::Text),
        text().prop_map(StaticBody::Json)
    ];
    let redirect = (any::<(u16, bool, bool)>(), text()).prop_map(
        |((status, keep_path, keep_query), location)| OwnAnswer::Redirect {
            status,
            location,
            keep_path,
            keep_query,
        },
    );
    let fixed =
        (any::<u16>(), text(), pairs(), body).prop_map(|(status, content_type, headers, body)| {
            OwnAnswer::Static { status, content_type, headers, body }
        });
    prop_oneof![redirect, fixed]
}

pub fn shape() -> impl Strategy<Value = RouteShape> {
    (request(), response(), option::of(answer()))
        .prop_map(|(request, response, answer)| RouteShape { request, response, answer })
}
