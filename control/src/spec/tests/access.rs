//! Broken specs about networks and origins.

use super::auth::gateway;
use super::broken::mentions;

#[test]
fn networks_and_origins() {
    let route = |fields: &str, expected: &[&str]| gateway(fields, "", expected);
    route("networks: {allow: [10.0.0.0/8], deny: [10.1.0.0/16]}", &[]);
    route("networks: {allow: []}", &["4:51 empty-list"]);
    route("networks: {deny: [10.0.0.1/8]}", &["4:51 bad-cidr"]);
    route("networks: {allow: [10.0.0.0/8], deny: [10.0.0.0/8]}", &["4:52 denied-network"]);
    route("networks:", &["4:33 empty-field"]);
    route("cors: {origins: ['https://a.example'], credentials: true}", &[]);
    route("cors: {}", &["4:39 missing-field"]);
    route("cors: {origins: []}", &["4:49 empty-list"]);
    route("cors: {origins: https://a.example}", &["4:49 wrong-type"]);
    mentions(
        &route("cors: {origins: '*', credentials: true}", &["4:67 cors-any-with-credentials"]),
        "list the origins",
    );
    mentions(&route("cors: {origins: ['*']}", &["4:50 bad-origin"]), "origins: \"*\"");
    mentions(&route("cors: {origins: ['null']}", &["4:50 bad-origin"]), "sandboxed");
    route("cors: {origins: ['a.example']}", &["4:50 bad-origin"]);
    route("cors: {origins: '*', methods: ['*']}", &["4:64 bad-method"]);
    route("cors: {origins: '*', headers: ['*']}", &["4:64 bad-field-name"]);
    route("cors: {origins: '*', max_age_s: 86401}", &["4:65 out-of-range"]);
}
