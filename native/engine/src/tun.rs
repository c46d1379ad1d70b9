//! One queue of a Linux TUN device. Before each packet the kernel has, in this order:
//!
//! ```text
//!     packet information (4 bytes: flags, EtherType), unless the device was made with IFF_NO_PI
//!     virtio-net header (10 bytes or more, of which 10 are used), if made with IFF_VNET_HDR
//! ```

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl};

use crate::io::Tun;
use crate::offload::{VIRTIO_HEADER_SIZE, VirtioHeader};

const INFORMATION_SIZE: usize = 4;
const MAX_HEADERS_SIZE: usize = 64;

/// linux/if_tun.h: `_IOW('T', 208, unsigned int)`, on all but MIPS, PowerPC and SPARC.
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0_u32 as libc::Ioctl;

/// A TUN device's queue by its descriptor, which must not block.
pub struct DescriptorTun {
    fd: OwnedFd,
    information_size: usize,
    virtio_size: usize,
}

impl DescriptorTun {
    /// Duplicates `fd`. A `virtio_header_size` of 0 stands for none.
    pub fn new(
        fd: BorrowedFd<'_>,
        virtio_header_size: usize,
        has_packet_information: bool,
    ) -> io::Result<Self> {
        let possible = VIRTIO_HEADER_SIZE..=MAX_HEADERS_SIZE - INFORMATION_SIZE;
        if virtio_header_size != 0 && !possible.contains(&virtio_header_size) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a virtio-net header of {virtio_header_size} bytes is not possible"),
            ));
        }
        if !fcntl_getfl(fd)?.contains(OFlags::NONBLOCK) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a TUN descriptor that blocks: set O_NONBLOCK",
            ));
        }
        Ok(Self {
            fd: fd.try_clone_to_owned()?,
            information_size: if has_packet_information {
                INFORMATION_SIZE
            } else {
                0
            },
            virtio_size: virtio_header_size,
        })
    }
}

impl AsFd for DescriptorTun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Tun for DescriptorTun {
    fn read(&self, packet: &mut [u8]) -> io::Result<(VirtioHeader, usize)> {
        let size = self.information_size + self.virtio_size;
        if size == 0 {
            let length = rustix::io::read(&self.fd, packet)?;
            return not_ended(length).map(|()| (VirtioHeader::default(), length));
        }
        let mut headers = [0; MAX_HEADERS_SIZE];
        let mut parts = [
            IoSliceMut::new(&mut headers[..size]),
            IoSliceMut::new(packet),
        ];
        let length = rustix::io::readv(&self.fd, &mut parts)?;
        not_ended(length)?;
        let header = match headers[self.information_size..].first_chunk() {
            Some(bytes) if self.virtio_size > 0 => VirtioHeader::from_bytes(bytes),
            _ => VirtioHeader::default(),
        };
        Ok((header, length.saturating_sub(size)))
    }

    fn write(&self, header: &VirtioHeader, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let size = self.information_size + self.virtio_size;
        let mut headers = [0; MAX_HEADERS_SIZE];
        if self.information_size > 0 {
            let is_ipv6 = parts
                .first()
                .and_then(|part| part.first())
                .map(|byte| byte >> 4)
                == Some(6);
            let ether_type: u16 = if is_ipv6 { 0x86dd } else { 0x0800 };
            headers[2..4].copy_from_slice(&ether_type.to_be_bytes());
        }
        if self.virtio_size > 0 {
            headers[self.information_size..][..VIRTIO_HEADER_SIZE]
                .copy_from_slice(&header.to_bytes());
        }
        let length = size + parts.iter().map(|part| part.len()).sum::<usize>();
        let written = match (size, parts) {
            (0, [packet]) => rustix::io::write(&self.fd, packet)?,
            (_, [packet]) => {
                let both = [IoSlice::new(&headers[..size]), IoSlice::new(packet)];
                rustix::io::writev(&self.fd, &both)?
            }
            _ => {
                let mut all = Vec::with_capacity(parts.len() + 1);
                all.push(IoSlice::new(&headers[..size]));
                all.extend(parts.iter().map(|part| IoSlice::new(part)));
                rustix::io::writev(&self.fd, &all)?
            }
        };
        if written == length {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    fn has_virtio_header(&self) -> bool {
        self.virtio_size > 0
    }

    fn switch_off_offloads(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open, and this request takes a number, no pointer.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), TUNSETOFFLOAD, 0_usize) };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

/// No packet is empty: reading nothing is what the end of a file looks like.
fn not_ended(length: usize) -> io::Result<()> {
    if length > 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EBADFD))
    }
}
