//! nginx and `HAProxy`, whose own limits count the connections or requests that one of them has open.
//! They know nothing of other proxies, nor of playbacks between two requests. Each answers a player
//! itself, with such a limit and without.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use testkit::port::ReservedPort;
use testkit::tools::{find, repository};
use testkit::watch::eventually;

/// Which of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Software {
    Nginx,
    Haproxy,
}

/// A running one; killed when dropped.
pub(crate) struct LimitingProxy {
    process: Child,
    pub(crate) address: SocketAddr,
    _port: ReservedPort,
    _folder: tempfile::TempDir,
}

const NGINX: &str = "\
daemon off;
master_process off;
error_log stderr crit;
pid nginx.pid;
events {}
http {
  access_log off;
  client_body_temp_path client_body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_requests 1000000000;
  limit_conn_zone $http_x_user_id zone=viewers:256m;
  limit_conn_status 429;
  server {
    listen ADDRESS http2;
    location / { LIMIT empty_gif; }
  }
}
";

const HAPROXY: &str = "\
global
  nbthread 1
defaults
  mode http
  timeout client 1h
frontend players
  bind ADDRESS proto h2
  LIMIT
  http-request return status 200
";

const HAPROXY_LIMIT: &str = "\
stick-table type string len 64 size 1m expire 1h store conn_cur
  http-request track-sc0 req.hdr(x-user-id)
  http-request deny deny_status 429 if { sc0_conn_cur gt 3 }";

/// The program, out of Debian's package if it isn't there.
fn program(software: Software) -> PathBuf {
    let name = match software {
        Software::Nginx => "nginx",
        Software::Haproxy => "haproxy",
    };
    find(
        &format!("STREAMGATE_BENCH_{}", name.to_uppercase()),
        &format!("tests/tools/get-{name}.sh"),
    )
}

impl LimitingProxy {
    /// Starts one with a limit of three for each user, or without.
    pub(crate) async fn start(software: Software, is_limited: bool) -> Self {
        let (port, folder) = (ReservedPort::reserve(), tempfile::tempdir().unwrap());
        let (text, limit) = match software {
            Software::Nginx => (NGINX, "limit_conn viewers 3;"),
            Software::Haproxy => (HAPROXY, HAPROXY_LIMIT),
        };
        let address = port.address();
        let text = text
            .replace("ADDRESS", &address.to_string())
            .replace("LIMIT", if is_limited { limit } else { "" });
        let file = folder.path().join("configuration");
        std::fs::write(&file, text).unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        let mut command = Command::new(program(software));
        match software {
            Software::Nginx => command.arg("-p").arg(folder.path()).arg("-c").arg(&file),
            Software::Haproxy => command.arg("-db").arg("-f").arg(&file),
        };
        let process = command.current_dir(repository("")).stdout(Stdio::null());
        let process = process.spawn().unwrap();
        eventually("the proxy listens", async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        Self {
            process,
            address,
            _port: port,
            _folder: folder,
        }
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for LimitingProxy {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
