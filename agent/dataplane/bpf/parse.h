/* What stands before an AMT message in a frame. Programs without CAP_PERFMON may not compare pointers into packets with
 * anything but the packet's end, so nothing here returns such a pointer. */
#ifndef ISTHMUS_PARSE_H
#define ISTHMUS_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/types.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IPV4_PLAIN 0x45             /* version 4, five words of header: no options */
#define IPV4_DONT_FRAGMENT 0x4000
#define IPV4_FRAGMENT 0x3fff        /* more fragments, or an offset */
#define IPV4_OFFSET 0x1fff
#define AMT_MULTICAST_DATA 6        /* version 0, type 6: RFC 7450 §5.1.6 */
#define VLAN_ID 0x0fff
#define MOST_TAGS 2

struct vlan_tag {
	__be16 control;
	__be16 ethertype;
};

struct amt_data {
	__u8 type;
	__u8 reserved;
};

/* Octets of all headers around an inner packet, but for the link's. */
#define OUTER4_SIZE (sizeof(struct iphdr) + sizeof(struct udphdr) + sizeof(struct amt_data))
#define OUTER6_SIZE (sizeof(struct ipv6hdr) + sizeof(struct udphdr) + sizeof(struct amt_data))

/* The same in one piece, for where speed does not matter: clang reads packed members octet by octet. */
struct outer4 {
	struct iphdr ip;
	struct udphdr udp;
	struct amt_data amt;
} __attribute__((packed));

struct outer6 {
	struct ipv6hdr ip;
	struct udphdr udp;
	struct amt_data amt;
} __attribute__((packed));

/* A place in a frame. `at` counts octets from the start of the frame; `start` and `end` are the frame's. */
struct cursor {
	void *start;
	void *end;
	__u32 at;
};

/* What the link layer says of a frame.
 * vlans: identifiers as in struct tunnel, the outermost in the upper half; 0 for an untagged frame, and for one that
 * carries only a priority (IEEE 802.1Q, identifier 0). */
struct link {
	__be16 ethertype;
	__u32 vlans;
};

/* Read one VLAN tag. Returns whether there was one; then the cursor has moved on behind it. */
static __always_inline int parse_tag(struct cursor *cursor, struct link *link)
{
	struct vlan_tag *tag = cursor->start + cursor->at;

	if (link->ethertype != bpf_htons(ETH_P_8021Q) && link->ethertype != bpf_htons(ETH_P_8021AD))
		return 0;
	if ((void *)(tag + 1) > cursor->end)
		return 0;
	link->ethertype = tag->ethertype;
	link->vlans = link->vlans << 16 | (bpf_ntohs(tag->control) & VLAN_ID);
	cursor->at += sizeof(*tag);
	return 1;
}

/* Read the Ethernet header and up to two tags. Returns 0 and leaves the cursor at what follows them; -1 when the frame
 * ends before. A third tag is left standing: its ethertype is nobody's. */
static __always_inline int parse_link(struct cursor *cursor, struct link *link)
{
	struct ethhdr *ethernet = cursor->start;

	if ((void *)(ethernet + 1) > cursor->end)
		return -1;
	link->ethertype = ethernet->h_proto;
	link->vlans = 0;
	cursor->at = sizeof(*ethernet);
	if (parse_tag(cursor, link)) {
		if (!parse_tag(cursor, link))
			link->vlans <<= 16;
	}
	return 0;
}

/* The 16-bit words of what is inside a tunnel. It begins two octets behind a multiple of four, whatever is around it, and
 * kernels for strict alignment (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS) take no program that reads more at a time there. */
static __always_inline const __be16 *words_of(const void *header)
{
	return __builtin_assume_aligned(header, 2);
}

/* As header_sum, of an inner packet. */
static __always_inline __u32 inner_header_sum(const struct iphdr *ip)
{
	const __be16 *words = words_of(ip);
	__u32 sum = words[0] + words[1] + words[2] + words[3] + words[4];

	sum += words[5] + words[6] + words[7] + words[8] + words[9];
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Sum of the 16-bit words of an IPv4 header without options: 0xffff when its checksum is right (RFC 1071). */
static __always_inline __u32 header_sum(const struct iphdr *ip)
{
	const __u32 *words = (const void *)ip;
	__u64 sum = (__u64)words[0] + words[1] + words[2] + words[3] + words[4];

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Traffic class of an IPv6 header. */
static __always_inline __u32 traffic_class(const struct ipv6hdr *ip)
{
	return (ip->priority << 4 | ip->flow_lbl[0] >> 4) & 0xff;
}

#endif
