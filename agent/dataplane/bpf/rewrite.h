/* Headers of a packet that has left its tunnel. */
#ifndef ISTHMUS_REWRITE_H
#define ISTHMUS_REWRITE_H

#include "outer.h"
#include "parse.h"

/* Source address of a frame until the interface it leaves by puts its own there. */
static __always_inline void write_unknown_source(struct ethhdr *ethernet)
{
	__builtin_memset(ethernet->h_source, 0, sizeof(ethernet->h_source));
	ethernet->h_source[0] = 2;
}

/* RFC 1112 §6.4. */
static __always_inline void address_frame4(struct ethhdr *ethernet, const struct iphdr *ip)
{
	const __u8 *group = (const void *)&ip->daddr;

	ethernet->h_dest[0] = 0x01;
	ethernet->h_dest[1] = 0x00;
	ethernet->h_dest[2] = 0x5e;
	ethernet->h_dest[3] = group[1] & 0x7f;
	ethernet->h_dest[4] = group[2];
	ethernet->h_dest[5] = group[3];
	ethernet->h_proto = bpf_htons(ETH_P_IP);
}

/* RFC 2464 §7. */
static __always_inline void address_frame6(struct ethhdr *ethernet, const struct ipv6hdr *ip)
{
	ethernet->h_dest[0] = 0x33;
	ethernet->h_dest[1] = 0x33;
	__builtin_memcpy(ethernet->h_dest + 2, ip->daddr.in6_u.u6_addr8 + 12, 4);
	ethernet->h_proto = bpf_htons(ETH_P_IPV6);
}

/* Write a packet's ECN field, take `hops` off its time to live and, if so asked, its Don't Fragment flag, which fragments
 * keep. The header checksum follows each change (RFC 1624 §3, equation 4); never 0xffff, as if computed anew. */
static __always_inline void rewrite_header4(struct iphdr *ip, __u32 ecn, __u32 hops, int clear_dont_fragment)
{
	__u32 sum = ip->check + bpf_htons(hops << 8);

	ip->ttl -= hops;
	if (clear_dont_fragment && ip->frag_off == bpf_htons(IPV4_DONT_FRAGMENT)) {
		ip->frag_off = 0;
		sum += bpf_htons(IPV4_DONT_FRAGMENT);
	}
	if ((ip->tos & ECN) != ecn) {
		__u8 tos = (ip->tos & ~ECN) | ecn;

		sum += bpf_htons(ip->tos) + (0xffff ^ bpf_htons(tos));
		ip->tos = tos;
	}
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = sum == 0xffff ? 0 : sum;
}

static __always_inline void rewrite_header6(struct ipv6hdr *ip, __u32 ecn, __u32 hops)
{
	ip->hop_limit -= hops;
	ip->flow_lbl[0] = (ip->flow_lbl[0] & 0xcf) | ecn << 4;
}

#endif
