//! The least reverse proxy on the pingora crate: one worker, keep-alive to client and upstream,
//! no log, one upstream. `pingora-peer LISTEN_PORT ORIGIN_PORT`, both on 127.0.0.1.

use std::env::args;
use std::process::exit;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

struct Proxy {
    origin: (&'static str, u16),
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, session: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        // The same one match on the path that the other peers do.
        if !session.req_header().uri.path().starts_with("/r") {
            return Error::e_explain(HTTPStatus(404), "no such route");
        }
        Ok(Box::new(HttpPeer::new(self.origin, false, String::new())))
    }
}

fn main() {
    let arguments: Vec<String> = args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == "--version") {
        println!("pingora-peer on pingora 0.9");
        return;
    }
    let ports: Vec<u16> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let [listen, origin] = ports[..] else {
        eprintln!("usage: pingora-peer LISTEN_PORT ORIGIN_PORT");
        exit(2);
    };
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: 1024,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let proxy = Proxy { origin: ("127.0.0.1", origin) };
    let mut service = http_proxy_service(&Arc::clone(&server.configuration), proxy);
    service.add_tcp(&format!("127.0.0.1:{listen}"));
    server.add_service(service);
    server.run_forever();
}
