//! HTTP on a port of 127.0.0.1: a client in one function, a server that does what a test says, and Debian's registry.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Folder, PATIENCE, free_port, wait_for};

/// A server that answers each request by what its function writes; the connection ends with the answer.
pub struct Web {
    /// Where it listens.
    pub port: u16,
}

impl Web {
    /// Serves until the test ends. The function gets the request's path and all its header lines.
    pub fn start(answer: impl Fn(&str, &str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (path, head) = request(&stream);
                answer(&path, &head, &mut stream); // who is not listened to any more has nothing to say
            }
        });
        Self { port }
    }
}

fn request(stream: &TcpStream) -> (String, String) {
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|n| n > 0) {}
    (head.split(' ').nth(1).unwrap_or_default().to_owned(), head)
}

/// An answer that is whole.
pub fn answer(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)); // the client may have gone
}

/// `sha256:…` of some octets, by another program than the one under test.
pub fn digest(octets: &[u8]) -> String {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let octets = octets.to_vec();
    let fed = std::thread::spawn(move || stdin.write_all(&octets).unwrap());
    let output = child.wait_with_output().unwrap();
    fed.join().unwrap();
    format!("sha256:{}", String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap())
}

/// A component and its manifest, as `wkg` and `oras` push them.
pub struct Artifact {
    /// The component.
    pub component: Vec<u8>,
    /// What the manifest says of it.
    pub manifest: String,
}

/// The config of an artifact: the least that there is.
const CONFIG: &[u8] = b"{}";

impl Artifact {
    /// With one layer of this kind.
    pub fn new(component: Vec<u8>, layer: &str) -> Self {
        let config = format!(
            r#"{{"mediaType":"application/vnd.wasm.config.v0+json","digest":"{}","size":{}}}"#,
            digest(CONFIG),
            CONFIG.len()
        );
        let layer =
            format!(r#"{{"mediaType":"{layer}","digest":"{}","size":{}}}"#, digest(&component), component.len());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{config},"layers":[{layer}]}}"#);
        Self { component, manifest }
    }
}

/// Debian's docker-registry; stopped when dropped.
pub struct Registry {
    /// Where it listens.
    pub port: u16,
    authorization: Option<&'static str>,
    child: Child,
    _folder: Folder,
}

impl Registry {
    /// None where it is not installed. `users` are lines as `htpasswd -B` writes them; `authorization` is what a pusher says.
    pub fn start(users: Option<&str>, authorization: Option<&'static str>) -> Option<Self> {
        let program = PathBuf::from("/usr/bin/docker-registry");
        if !program.is_file() {
            return None;
        }
        let folder = Folder::new();
        let port = free_port();
        let auth = users.map_or(String::new(), |users| {
            let file = folder.write("htpasswd", users);
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
        });
        let storage = folder.path().join("storage");
        let config = folder.write(
            "config.yml",
            format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n{auth}",
                storage.display()
            ),
        );
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(config).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        wait_for("the registry to listen", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        Some(Self { port, authorization, child, _folder: folder })
    }

    /// Pushes an artifact under a tag; returns the digest of its manifest.
    pub fn push(&self, repository: &str, tag: &str, artifact: &Artifact) -> String {
        for blob in [CONFIG, &artifact.component] {
            let (status, head, _) = self.exchange("POST", &format!("/v2/{repository}/blobs/uploads/"), "", &[]);
            assert_eq!(status, 202, "{head}");
            let location = header(&head, "location").unwrap();
            let path = &location[location.find("/v2/").unwrap()..];
            let path = format!("{path}{}digest={}", if path.contains('?') { '&' } else { '?' }, digest(blob));
            let (status, head, _) = self.exchange("PUT", &path, "Content-Type: application/octet-stream\r\n", blob);
            assert_eq!(status, 201, "{head}");
        }
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n";
        let path = format!("/v2/{repository}/manifests/{tag}");
        let (status, head, body) = self.exchange("PUT", &path, kind, artifact.manifest.as_bytes());
        assert_eq!(status, 201, "{head}{}", String::from_utf8_lossy(&body));
        header(&head, "docker-content-digest").unwrap()
    }

    fn exchange(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let authorization = self.authorization.map_or(String::new(), |value| format!("Authorization: {value}\r\n"));
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Length: {length}\r\n{authorization}{headers}\r\n",
            self.port
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut octets = Vec::new();
        stream.read_to_end(&mut octets).unwrap();
        let end = octets.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&octets[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, octets[end + 4..].to_vec())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
}

/// The same component with other octets: a section that nobody reads at its end.
pub fn variant(component: &Path, mark: u8) -> Vec<u8> {
    let mut octets = std::fs::read(component).unwrap();
    octets.extend_from_slice(&[0, 2, 1, mark]); // custom section, two octets: a name of one
    octets
}
