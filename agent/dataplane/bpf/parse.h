/* What stands before an AMT message in a frame.
 *
 * Without CAP_PERFMON the kernel takes no program that compares pointers into packets with anything but the packet's end,
 * takes one from the other, or adds to them what is not a constant. So the code is made once for each place a header may
 * be at: everything is inlined into one function per place, and so every `at` is a constant there. */
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

/* Of a choice between members of one structure the compiler makes a variable to add, which takes CAP_PERFMON; not of one
 * between pointers that it knows nothing about. */
#define KEEP_APART(pointer) asm volatile("" : "+r"(pointer))

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

/* A place in a frame. `at` counts octets from the start of the frame, a constant; `start` and `end` are the frame's. */
struct cursor {
	void *start;
	void *end;
	__u32 at;
};

static __always_inline int is_tag(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

/* 0 for a tag that carries only a priority (IEEE 802.1Q). */
static __always_inline __u32 vlan_of(const struct vlan_tag *tag)
{
	return bpf_ntohs(tag->control) & VLAN_ID;
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
