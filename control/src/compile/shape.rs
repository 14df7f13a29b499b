//! What routes change of requests and answers, and what they answer themselves.

use contract::snapshot as flat;

use crate::spec::{
    CookieRewrite, CookieSite, NameEdits, NewCookie, PathEdit, Respond, Route, RouteRequest,
    RouteResponse, scalars,
};

/// `None`: nothing.
pub fn shape(route: &Route) -> Option<Box<flat::RouteShape>> {
    let redirect = route.redirect.as_ref().map(|redirect| flat::OwnAnswer::Redirect {
        status: redirect.status,
        location: redirect.location.clone(),
        keep_path: redirect.keep_path,
        keep_query: redirect.keep_query,
    });
    let shape = flat::RouteShape {
        request: route.request.as_ref().map(request).unwrap_or_default(),
        response: route.response.as_ref().map(response).unwrap_or_default(),
        answer: redirect.or(route.respond.as_ref().map(respond)),
    };
    (shape != flat::RouteShape::default()).then(|| Box::new(shape))
}

fn request(request: &RouteRequest) -> flat::RequestShape {
    flat::RequestShape {
        method: request.method.clone(),
        host: request.host.clone(),
        path: request.path.as_ref().map(|path| match path {
            PathEdit::Whole(path) => flat::PathShape::Whole(path.clone()),
            PathEdit::Replace(replace) => flat::PathShape::Replace {
                pattern: replace.regex.clone(),
                with: replace.with.clone(),
            },
        }),
        query: names(&request.query),
        headers: names(&request.headers),
        cookies: flat::CookieRules {
            set: pairs(&request.cookies.set),
            remove: request.cookies.remove.clone(),
        },
    }
}

fn response(response: &RouteResponse) -> flat::ResponseShape {
    let cookies = &response.cookies;
    let mut status: Vec<flat::StatusRule> = response
        .status
        .iter()
        .filter_map(|(from, to)| {
            let range = scalars::status_range(from).ok()?;
            Some(flat::StatusRule { first: range.first, last: range.last, to: *to })
        })
        .collect();
    // The narrower goes first.
    status.sort_by_key(|rule| (rule.last - rule.first, rule.first));
    flat::ResponseShape {
        status,
        headers: names(&response.headers),
        cookies: flat::AnswerCookies {
            set: cookies.set.iter().map(|(name, cookie)| new_cookie(name, cookie)).collect(),
            remove: cookies.remove.clone(),
            rewrite: cookies.rewrite.iter().map(cookie_rewrite).collect(),
        },
        max_body_bytes: response.max_body_bytes,
    }
}

fn respond(respond: &Respond) -> flat::OwnAnswer {
    let (body, kind) = match (&respond.body, &respond.json) {
        (Some(text), _) => (flat::StaticBody::Text(text.clone()), "text/plain; charset=utf-8"),
        (None, Some(json)) => (flat::StaticBody::Json(json.to_string()), "application/json"),
        (None, None) => (flat::StaticBody::Empty, ""),
    };
    flat::OwnAnswer::Static {
        status: respond.status,
        content_type: respond.content_type.clone().unwrap_or_else(|| kind.into()),
        headers: pairs(&respond.headers),
        body,
    }
}

fn names(edits: &NameEdits) -> flat::NameRules {
    flat::NameRules {
        rename: pairs(&edits.rename),
        copy: pairs(&edits.copy),
        remove: edits.remove.clone(),
        set: pairs(&edits.set),
        add: pairs(&edits.add),
    }
}

fn pairs(map: &std::collections::BTreeMap<String, String>) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn new_cookie(name: &str, cookie: &NewCookie) -> flat::NewCookie {
    flat::NewCookie {
        name: name.into(),
        value: cookie.value.clone(),
        attributes: flat::CookieAttributes {
            domain: cookie.domain.clone(),
            path: Some(cookie.path.clone()),
            secure: cookie.secure.then_some(true),
            http_only: cookie.http_only.then_some(true),
            same_site: cookie.same_site.map(site),
            max_age_s: cookie.max_age,
        },
    }
}

fn cookie_rewrite(rewrite: &CookieRewrite) -> flat::CookieRewrite {
    flat::CookieRewrite {
        name: rewrite.name.clone(),
        attributes: flat::CookieAttributes {
            domain: rewrite.domain.clone(),
            path: rewrite.path.clone(),
            secure: rewrite.secure,
            http_only: rewrite.http_only,
            same_site: rewrite.same_site.map(site),
            max_age_s: rewrite.max_age,
        },
    }
}

fn site(site: CookieSite) -> flat::SameSite {
    match site {
        CookieSite::Strict => flat::SameSite::Strict,
        CookieSite::Lax => flat::SameSite::Lax,
        CookieSite::None => flat::SameSite::None,
    }
}
