//! nginx: as the load balancer before instances, and as a contender that answers by itself.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

use crate::folder::Folder;
use crate::process::{Process, free_address};
use crate::subject::Quota;

/// What it answers by itself: as much as the service's route does.
const BODY: &str =
    r#"{"msg":"Successfully Hit","time":"2025-11-09T11:37:54+05:30","instanceId":"46950-059eff"}"#;

/// Ends when dropped.
#[derive(Debug)]
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    /// Where its files are.
    pub(crate) folder: Folder,
}

impl Nginx {
    /// Passes requests on to these instances in turn; never asks a second one.
    pub(crate) async fn balancer(instances: &[SocketAddr]) -> Result<Self> {
        let servers: String = instances
            .iter()
            .map(|address| format!("server {address} max_fails=0;\n"))
            .collect();
        let upstream = format!("upstream tollgate {{\n{servers}keepalive 256;\n}}\n");
        let location = "proxy_pass http://tollgate; proxy_http_version 1.1; proxy_next_upstream off; \
             proxy_set_header Connection \"\"; proxy_set_header X-Forwarded-For $http_x_forwarded_for;";
        Self::start(&upstream, location).await
    }

    /// Answers from a file, behind `limit_req` where there is a quota.
    pub(crate) async fn alone(quota: Option<Quota>) -> Result<Self> {
        let limit = quota.map(|quota| (quota.nginx_rate(), quota.nginx_burst()));
        let zone = limit.as_ref().map_or(String::new(), |(rate, _)| {
            format!("limit_req_zone $http_x_forwarded_for zone=clients:64m rate={rate};\n")
        });
        let location = limit.map_or(String::new(), |(_, burst)| {
            format!("limit_req zone=clients burst={burst} nodelay; limit_req_status 429;")
        });
        Self::start(&zone, &location).await
    }

    async fn start(outside: &str, location: &str) -> Result<Self> {
        let (folder, address) = (Folder::make()?, free_address()?);
        folder.write("api", BODY)?;
        let here = folder.path().display();
        let configuration = folder.write(
            "nginx.conf",
            &format!(
                "daemon off;\nmaster_process off;\npid {here}/pid;\nerror_log {here}/error.log crit;\n\
                 events {{ worker_connections 2048; }}\nhttp {{\naccess_log off;\nkeepalive_requests 1000000000;\n\
                 client_body_temp_path {here}/1; proxy_temp_path {here}/2; fastcgi_temp_path {here}/3;\n\
                 uwsgi_temp_path {here}/4; scgi_temp_path {here}/5;\nopen_file_cache max=10;\n{outside}\
                 server {{ listen {address}; default_type application/json;\n\
                 location / {{ root {here}; {location} }} }}\n}}\n"
            ),
        )?;
        let prefix = here.to_string();
        let arguments = ["-e", "stderr", "-p", &prefix, "-c", &configuration];
        let mut process = Process::start(Path::new("nginx"), &arguments, &[])?;
        process.until_listening(address).await.context("nginx")?;
        Ok(Self {
            address,
            process,
            folder,
        })
    }
}
