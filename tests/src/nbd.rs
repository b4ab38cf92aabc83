//! A minimal NBD client that knows exactly which bytes were acknowledged.
//!
//! Owns one connection: fixed newstyle with EXPORT_NAME, then one request at a time (NBD protocol, doc/proto.md of the
//! reference implementation). Every failure is an `io::Error`, because tests cut the connection on purpose.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const INIT_MAGIC: &[u8; 8] = b"NBDMAGIC";
const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
/// NBD_FLAG_C_FIXED_NEWSTYLE and NBD_FLAG_C_NO_ZEROES.
const CLIENT_FLAGS: u32 = 3;
const OPTION_EXPORT_NAME: u32 = 1;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const COMMAND_READ: u16 = 0;
const COMMAND_WRITE: u16 = 1;
const COMMAND_FLUSH: u16 = 3;

/// NBD_CMD_FLAG_FUA.
const DURABLE: u16 = 1;

/// Longest silence of the server before a request counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection in transmission.
#[derive(Debug)]
pub struct Nbd {
    stream: UnixStream,
    /// Size of the export in bytes.
    pub size: u64,
    /// Transmission flags.
    pub flags: u16,
    cookie: u64,
}

impl Nbd {
    /// Connects to `socket` and opens `export`.
    ///
    /// # Errors
    /// The connection failed, or the server is none.
    pub fn open(socket: &Path, export: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        if &greeting[..8] != INIT_MAGIC || &greeting[8..16] != OPTION_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no NBD server"));
        }
        let length = u32::try_from(export.len()).map_err(io::Error::other)?;
        let mut option = CLIENT_FLAGS.to_be_bytes().to_vec();
        option.extend(OPTION_MAGIC);
        option.extend(OPTION_EXPORT_NAME.to_be_bytes());
        option.extend(length.to_be_bytes());
        option.extend(export.as_bytes());
        stream.write_all(&option)?;
        let mut size = [0; 8];
        let mut flags = [0; 2];
        stream.read_exact(&mut size)?;
        stream.read_exact(&mut flags)?;
        Ok(Self {
            stream,
            size: u64::from_be_bytes(size),
            flags: u16::from_be_bytes(flags),
            cookie: 0,
        })
    }

    fn request(
        &mut self,
        (command, flags): (u16, u16),
        offset: u64,
        length: usize,
        data: &[u8],
    ) -> io::Result<()> {
        self.cookie += 1;
        let length = u32::try_from(length).map_err(io::Error::other)?;
        let mut message = REQUEST_MAGIC.to_be_bytes().to_vec();
        message.extend(flags.to_be_bytes());
        message.extend(command.to_be_bytes());
        message.extend(self.cookie.to_be_bytes());
        message.extend(offset.to_be_bytes());
        message.extend(length.to_be_bytes());
        message.extend(data);
        self.stream.write_all(&message)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        if reply[..4] != REPLY_MAGIC.to_be_bytes() || reply[8..] != self.cookie.to_be_bytes() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no simple reply to this request",
            ));
        }
        match u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]]) {
            0 => Ok(()),
            code => {
                Err(io::Error::from_raw_os_error(i32::try_from(code).map_err(io::Error::other)?))
            }
        }
    }

    /// Writes; `Ok` says that the server acknowledged it.
    ///
    /// # Errors
    /// The server's error number, or that of the connection.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.request((COMMAND_WRITE, 0), offset, data.len(), data)
    }

    /// Writes, and makes that durable.
    ///
    /// # Errors
    /// As for `write`.
    pub fn write_durable(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.request((COMMAND_WRITE, DURABLE), offset, data.len(), data)
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// As for `write`.
    pub fn flush(&mut self) -> io::Result<()> {
        self.request((COMMAND_FLUSH, 0), 0, 0, &[])
    }

    /// Reads `length` bytes.
    ///
    /// # Errors
    /// As for `write`.
    pub fn read(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.request((COMMAND_READ, 0), offset, length, &[])?;
        let mut data = vec![0; length];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }
}
