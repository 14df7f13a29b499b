//! What routes keep of answers.

use super::Check;
use crate::spec::Severity;

pub fn check(check: &mut Check<'_>) {
    let spec = check.spec;
    for (at, route) in spec.routes.iter().enumerate() {
        let Some(cache) = &route.cache else { continue };
        if spec.cache.max_bytes == 0 {
            let message = "nothing is kept: `cache.max_bytes` is 0".into();
            let field = format!("routes[{at}].cache");
            check.report(Severity::Warning, "cache-off", &field, "", message, None);
        }
        if cache.key.consumer && route.auth.is_none() {
            let message = "nobody is known here, so nobody has answers of their own; give the route \
                           an `auth`, or leave `consumer` out";
            let field = format!("routes[{at}].cache.key.consumer");
            check.report(Severity::Error, "no-consumers", &field, "true", message.into(), None);
        }
    }
}
