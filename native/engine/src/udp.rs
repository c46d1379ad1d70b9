//! A bound UDP socket of one family on Linux: many datagrams of one size in one message, in both
//! directions (UDP GSO and GRO), and the local address they were sent to or leave from.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{addr_of, null_mut, read_unaligned, write_unaligned};

use libc::{c_int, c_void, cmsghdr, iovec, mmsghdr, msghdr, socklen_t};

use crate::endpoint::{Endpoint, Source};
use crate::io::{MESSAGES, Message, Received, Socket};

/// Room for the ancillary data of one message: a segment size, an address and a traffic class, with
/// some to spare.
const CONTROL_SIZE: usize = 128;

/// As the kernel wants it aligned.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_SIZE]);

/// A socket by its descriptor.
pub struct DescriptorSocket {
    fd: OwnedFd,
    is_ipv6: bool,
    max_segments: usize,
}

impl DescriptorSocket {
    /// Duplicates `fd`, a socket bound to IPv6 (only) or to IPv4.
    pub fn new(fd: BorrowedFd<'_>, is_ipv6: bool, max_segments: usize) -> io::Result<Self> {
        Ok(Self {
            fd: fd.try_clone_to_owned()?,
            is_ipv6,
            max_segments,
        })
    }

    fn send_message(
        &self,
        bytes: &[u8],
        segment_size: Option<u16>,
        endpoint: &Endpoint,
        traffic_class: u8,
    ) -> io::Result<()> {
        let (mut address, address_length) = to_raw(&endpoint.address);
        let mut control = Control([0; CONTROL_SIZE]);
        let mut part = iovec {
            iov_base: bytes.as_ptr() as *mut c_void, // only read from
            iov_len: bytes.len(),
        };
        // SAFETY: all-zero bytes are a valid msghdr.
        let mut message: msghdr = unsafe { zeroed() };
        message.msg_name = (&raw mut address).cast();
        message.msg_namelen = address_length;
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        let mut used = 0;
        if let Some(source) = &endpoint.source {
            used = put_source(&mut control, used, source);
        }
        if traffic_class != 0 {
            let (level, kind) = if self.is_ipv6 {
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            } else {
                (libc::IPPROTO_IP, libc::IP_TOS)
            };
            used = put(&mut control, used, level, kind, &c_int::from(traffic_class));
        }
        if let Some(size) = segment_size {
            used = put(&mut control, used, libc::SOL_UDP, libc::UDP_SEGMENT, &size);
        }
        message.msg_controllen = used as _;
        // SAFETY: name, parts and control are valid for the length of the call and outlive it; the
        // kernel writes to none of them.
        let sent = unsafe { libc::sendmsg(self.fd.as_raw_fd(), &message, libc::MSG_DONTWAIT) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        if sent as usize != bytes.len() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }
}

impl AsFd for DescriptorSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket for DescriptorSocket {
    fn is_ipv6(&self) -> bool {
        self.is_ipv6
    }

    fn max_segments(&self) -> usize {
        self.max_segments
    }

    fn send(&self, datagram: &[u8], endpoint: &Endpoint, traffic_class: u8) -> io::Result<()> {
        self.send_message(datagram, None, endpoint, traffic_class)
    }

    fn send_segments(
        &self,
        datagrams: &[u8],
        size: usize,
        endpoint: &Endpoint,
        traffic_class: u8,
    ) -> io::Result<()> {
        let size = u16::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
        self.send_message(datagrams, Some(size), endpoint, traffic_class)
    }

    fn receive(&self, received: &mut Received) -> io::Result<()> {
        // SAFETY: all-zero bytes are a valid sockaddr_storage, mmsghdr and iovec.
        let (mut addresses, mut headers, mut parts): (
            [libc::sockaddr_storage; MESSAGES],
            [mmsghdr; MESSAGES],
            [iovec; MESSAGES],
        ) = unsafe { (zeroed(), zeroed(), zeroed()) };
        let mut controls = [MaybeUninit::<Control>::uninit(); MESSAGES];
        for (number, slot) in received.slots().enumerate() {
            parts[number] = iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: slot.len(),
            };
            let header = &mut headers[number].msg_hdr;
            header.msg_name = (&raw mut addresses[number]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as socklen_t;
            header.msg_iov = &mut parts[number];
            header.msg_iovlen = 1;
            header.msg_control = controls[number].as_mut_ptr().cast();
            header.msg_controllen = CONTROL_SIZE as _;
        }
        // SAFETY: each header points to a name, one part and a control buffer of the lengths it
        // says, all distinct and alive; the kernel writes within them and nowhere else.
        let count = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                MESSAGES as _,
                libc::MSG_DONTWAIT,
                null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        received.messages.clear();
        for (header, address) in headers.iter().zip(&addresses).take(count as usize) {
            let length = header.msg_len as usize;
            let control = read_control(&header.msg_hdr);
            let known = from_raw(address);
            received.messages.push(Message {
                length,
                segment_size: control.segment_size.unwrap_or(length),
                source: Endpoint {
                    address: known.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into()),
                    source: control.source,
                },
                traffic_class: control.traffic_class,
                // Of another family than the socket's: cannot be, and is then of no use.
                is_truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 || known.is_none(),
            });
        }
        Ok(())
    }

    fn switch_off_gro(&self) -> io::Result<()> {
        let off: c_int = 0;
        // SAFETY: the option's value is an int, and is only read.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_UDP,
                libc::UDP_GRO,
                addr_of!(off).cast(),
                size_of::<c_int>() as socklen_t,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

// -- ancillary data: cmsg(3), ip(7), RFC 3542 section 6 ------------------------------------------

/// Append one control message; return how many bytes are used then.
fn put<T: Copy>(control: &mut Control, used: usize, level: c_int, kind: c_int, value: &T) -> usize {
    // SAFETY: these two are arithmetic.
    let (space, length) = unsafe {
        (
            libc::CMSG_SPACE(size_of::<T>() as u32) as usize,
            libc::CMSG_LEN(size_of::<T>() as u32),
        )
    };
    let data = length as usize - size_of::<T>();
    let room = &mut control.0[used..used + space];
    // SAFETY: `room` holds the header and after it the value; unaligned writes need no more.
    unsafe {
        let mut header: cmsghdr = zeroed();
        header.cmsg_len = length as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        write_unaligned(room.as_mut_ptr().cast(), header);
        write_unaligned(room[data..].as_mut_ptr().cast(), *value);
    }
    used + space
}

/// Only the address is pinned, not the interface: the route to the peer may move to another one.
/// A link-local IPv6 address means nothing without its interface, so there it is given.
fn put_source(control: &mut Control, used: usize, source: &Source) -> usize {
    match source.address {
        IpAddr::V4(address) => {
            let information = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            put(
                control,
                used,
                libc::IPPROTO_IP,
                libc::IP_PKTINFO,
                &information,
            )
        }
        IpAddr::V6(address) => {
            let information = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: address.octets(),
                },
                ipi6_ifindex: if address.is_unicast_link_local() {
                    source.interface_index as _
                } else {
                    0
                },
            };
            put(
                control,
                used,
                libc::IPPROTO_IPV6,
                libc::IPV6_PKTINFO,
                &information,
            )
        }
    }
}

/// What the kernel says of a received message.
#[derive(Default)]
struct Ancillary {
    /// The address it came to.
    source: Option<Source>,
    segment_size: Option<usize>,
    traffic_class: u8,
}

fn read_control(header: &msghdr) -> Ancillary {
    let mut read = Ancillary::default();
    // SAFETY: the kernel has filled in `msg_control` and `msg_controllen`; the macros stay within,
    // and a value is read only from a message that is long enough for it.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = message.as_ref() {
            let data = libc::CMSG_DATA(message);
            let has = |size: usize| control.cmsg_len >= libc::CMSG_LEN(size as u32) as _;
            match (control.cmsg_level, control.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) if has(size_of::<c_int>()) => {
                    let segment: c_int = read_unaligned(data.cast());
                    read.segment_size = usize::try_from(segment).ok().filter(|size| *size > 0);
                }
                (libc::IPPROTO_IP, libc::IP_TOS) if has(size_of::<u8>()) => {
                    read.traffic_class = *data; // one byte, although it is set as an int
                }
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) if has(size_of::<c_int>()) => {
                    let class: c_int = read_unaligned(data.cast());
                    read.traffic_class = class as u8;
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) if has(size_of::<libc::in_pktinfo>()) => {
                    let information: libc::in_pktinfo = read_unaligned(data.cast());
                    read.source = Some(Source {
                        // Not the header's destination: a broadcast is no source.
                        address: Ipv4Addr::from(information.ipi_spec_dst.s_addr.to_ne_bytes())
                            .into(),
                        interface_index: information.ipi_ifindex as u32,
                    });
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if has(size_of::<libc::in6_pktinfo>()) => {
                    let information: libc::in6_pktinfo = read_unaligned(data.cast());
                    read.source = Some(Source {
                        address: Ipv6Addr::from(information.ipi6_addr.s6_addr).into(),
                        interface_index: information.ipi6_ifindex as u32,
                    });
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    read
}

// -- socket addresses ----------------------------------------------------------------------------

#[repr(C)]
union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

fn to_raw(address: &SocketAddr) -> (RawAddress, socklen_t) {
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as _,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            let length = size_of::<libc::sockaddr_in>() as socklen_t;
            (RawAddress { v4: raw }, length)
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as _,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            let length = size_of::<libc::sockaddr_in6>() as socklen_t;
            (RawAddress { v6: raw }, length)
        }
    }
}

fn from_raw(raw: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(raw.ss_family) {
        libc::AF_INET => {
            // SAFETY: a sockaddr_storage is as large and aligned as any address, and the family
            // says that this is one of IPv4.
            let v4: &libc::sockaddr_in = unsafe { &*addr_of!(*raw).cast() };
            let address = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(address, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, of IPv6.
            let v6: &libc::sockaddr_in6 = unsafe { &*addr_of!(*raw).cast() };
            let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(address, port, 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}
