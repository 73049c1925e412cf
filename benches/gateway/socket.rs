//! A WebSocket client, and one of the co-authoring service that opens a session as the editor does.

use std::net::SocketAddr;
use std::time::Duration;

use memchr::memmem;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Result;
use crate::frames::{Frame, Frames, TEXT, client_close, client_text};
use crate::upstream::KEY;

/// How long a session may take to open, or a message to be answered, until it counts as lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// How long a closed connection may take to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// The client's end of a WebSocket.
pub(crate) struct Socket {
    stream: TcpStream,
    frames: Frames,
}

impl Socket {
    /// Connects to a path and does the handshake.
    pub(crate) async fn connect(address: SocketAddr, path: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Origin: http://{address}\r\nUser-Agent: bench\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut frames = Frames::new();
        let end = loop {
            if frames.fill(&mut stream).await? == 0 {
                return Err("the connection ended in the handshake".into());
            }
            if let Some(end) = memmem::find(frames.unread(), b"\r\n\r\n") {
                break end + 4;
            }
        };
        if !frames.unread().starts_with(b"HTTP/1.1 101 ") {
            let answer = String::from_utf8_lossy(frames.unread());
            let line = answer.lines().next().unwrap_or_default();
            return Err(format!("the handshake was answered with {line:?}").into());
        }
        frames.skip(end);
        Ok(Self { stream, frames })
    }

    /// Both for a client that blocks; what was read ahead is in the frames.
    pub(crate) fn into_blocking(self) -> Result<(std::net::TcpStream, Frames)> {
        let stream = self.stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok((stream, self.frames))
    }

    /// Opens a session as an editor of a document of its own: connected, authorised, admitted.
    pub(crate) async fn open(address: SocketAddr, number: u64) -> Result<Self> {
        timeout(PATIENCE, Self::open_unbounded(address, number))
            .await
            .map_err(|_| "a session did not open in time")?
    }

    async fn open_unbounded(address: SocketAddr, number: u64) -> Result<Self> {
        let key = format!("bench-{number:08}");
        let path = format!("/doc/{key}/c/?shardkey={key}&EIO=4&transport=websocket");
        let mut socket = Self::connect(address, &path).await?;
        let mut out = Vec::with_capacity(1024);
        socket.expect(b"0{").await?;
        client_text(&mut out, "40{}");
        socket.write(&out).await?;
        socket.expect(b"40{").await?;
        socket.expect(br#"42["message",{"type":"license""#).await?;
        out.clear();
        client_text(&mut out, &auth(&key, number));
        socket.write(&out).await?;
        socket.expect(br#"42["message",{"type":"auth","result":1,"#).await?;
        Ok(socket)
    }

    pub(crate) async fn write(&mut self, frames: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(frames).await?)
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.frames.take() {
                return Ok(frame);
            }
            if self.frames.fill(&mut self.stream).await? == 0 {
                return Err("the connection ended".into());
            }
        }
    }

    /// Waits for a text message of so many bytes; returns whether it came.
    pub(crate) async fn expect_length(&mut self, length: usize) -> Result<()> {
        let frame = self.next().await?;
        if frame.opcode == TEXT && frame.payload.len() == length {
            return Ok(());
        }
        Err(self.unexpected(&frame))
    }

    /// Waits for a text message.
    pub(crate) async fn expect_text(&mut self) -> Result<()> {
        let frame = self.next().await?;
        if frame.opcode == TEXT { Ok(()) } else { Err(self.unexpected(&frame)) }
    }

    async fn expect(&mut self, prefix: &[u8]) -> Result<()> {
        let frame = self.next().await?;
        if frame.opcode == TEXT && self.frames.payload(&frame).starts_with(prefix) {
            return Ok(());
        }
        Err(self.unexpected(&frame))
    }

    fn unexpected(&self, frame: &Frame) -> Box<dyn std::error::Error + Send + Sync> {
        let payload = String::from_utf8_lossy(self.frames.payload(frame));
        let start: String = payload.chars().take(80).collect();
        format!("unexpected frame {:#x}: {start}", frame.opcode).into()
    }

    /// Says goodbye as the editor does, and waits for the end.
    pub(crate) async fn close(mut self) {
        let mut out = Vec::new();
        client_text(&mut out, "41");
        client_close(&mut out);
        let ending = async {
            self.write(&out).await?;
            while self.frames.fill(&mut self.stream).await? > 0 {
                self.frames.skip(usize::MAX / 2);
            }
            Result::Ok(())
        };
        let _ = timeout(FAREWELL, ending).await;
    }
}

/// The editor's `auth`, some 700 B.
pub(crate) fn auth(key: &str, number: u64) -> String {
    format!(
        r#"42["message",{{"type":"auth","docid":"{key}","documentCallbackUrl":"http://integrator.example/callback?document={key}","token":"fghhfgsjdgfjs","user":{{"id":"user-{number:08}","username":"User {number}","firstname":null,"lastname":null,"indexUser":-1}},"editorType":0,"lastOtherSaveTime":-1,"block":[],"sessionId":null,"sessionTimeConnect":null,"sessionTimeIdle":0,"documentFormatSave":65,"view":false,"isCloseCoAuthoring":false,"openCmd":{{"c":"open","id":"{key}","userid":"user-{number:08}","format":"docx","url":"http://integrator.example/files/{key}.docx","title":"Document.docx","lcid":9,"nobase64":true,"convertToOrigin":".pdf.xps.oxps.djvu"}},"lang":"en","mode":"edit","permissions":{{"edit":true}},"IsAnonymousUser":false,"timezoneOffset":0,"coEditingMode":"fast","jwtOpen":"","supportAuthChangesAck":true}}]"#
    )
}
