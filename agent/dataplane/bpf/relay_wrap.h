/* Makes a packet that goes round ready to be sent: hop counted, checksums complete, room for the outer headers and
 * everything in them that is the same for all tunnels. */
#ifndef ISTHMUS_RELAY_WRAP_H
#define ISTHMUS_RELAY_WRAP_H

#include "relay_judge.h"

#define ERROR_NOT_SUPPORTED -524 /* the kernel's ENOTSUPP */
#define OUTER4 (ETH_HLEN + IPV4_HEADER + UDP_HEADER + 2)
#define OUTER6 (ETH_HLEN + IPV6_HEADER + UDP_HEADER + 2)
#define AMT_DATA 0x0600 /* version 0, type 6, reserved: RFC 7450 section 5.1.6 */
#define PIECE 512
#define PIECES (LONGEST_PACKET / PIECE)

/* Takes the place of the Ethernet addresses while the packet goes round. The first octet makes it unicast to somebody
 * else, so that neither the host nor a capture would take it for its own. */
struct travel {
	__u8 nobody;
	__u8 wrapped;
	__u16 sum;           /* of the inner packet, 16-bit words as they stand in memory */
	__u32 list;
	__u32 position;
	__be16 protocol;     /* of the outer header */
};
#define NOBODY 0x02

struct summing {
	struct __sk_buff *skb;
	struct scratch *scratch;
	__u32 at;
	__u32 end;
	__u64 sum;
	__u32 failed;
};

static long sum_piece(__u32 number, struct summing *run)
{
	__u64 size = run->end - run->at;
	__u32 rest = 0;

	if (run->at >= run->end)
		return 1;
	if (size > PIECE)
		size = PIECE;
	asm volatile("" : "+r"(size)); /* keeps the compiler from moving the bounds to where the verifier loses them */
	if (size < 1)
		return 1;
	if (size < 4) {
		run->failed = bpf_skb_load_bytes(run->skb, run->at, &rest, size) != 0;
		run->sum += rest;
		return 1;
	}
	size &= 2 * PIECE - 4;
	asm volatile("" : "+r"(size));
	if (size < 4 || size > PIECE || bpf_skb_load_bytes(run->skb, run->at, run->scratch->octets, size)) {
		run->failed = 1;
		return 1;
	}
	run->sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)run->scratch->octets, size, 0);
	run->at += size;
	return 0;
}

/* The sum of the whole inner packet, or a negative number. */
static __always_inline __s64 sum_packet(struct __sk_buff *skb, __u32 length)
{
	__u32 zero = 0;
	struct summing run = { .skb = skb, .at = ETH_HLEN, .end = ETH_HLEN + length };

	run.scratch = bpf_map_lookup_elem(&scratches, &zero);
	if (!run.scratch)
		return -1;
	bpf_loop(PIECES + 1, sum_piece, &run, 0);
	return run.failed ? -1 : fold(run.sum);
}

/* No frame padding, and no sum of the driver's (CHECKSUM_COMPLETE), which every change from here on would falsify. */
static __always_inline int bare(struct __sk_buff *skb, __u32 length)
{
	__u32 whole = ETH_HLEN + length;

	if (bpf_csum_update(skb, 0) != ERROR_NOT_SUPPORTED && bpf_skb_change_tail(skb, skb->len + 1, 0))
		return -1;
	return skb->len != whole && bpf_skb_change_tail(skb, whole, 0) ? -1 : 0;
}

/* The kernel forgets that it has to finish a checksum when what is taken off the front reaches behind the place where
 * the sum would begin. The headers taken off are written again behind the outer ones. */
struct inner {
	__u32 head[14];      /* IP, UDP, eight octets of data */
	__u32 taken;         /* octets of it taken off */
};

static __always_inline int finish_checksum(struct __sk_buff *skb, struct inner *inner, int is_ipv6, __u64 *sum)
{
	__u32 words = (is_ipv6 ? IPV6_HEADER : IPV4_HEADER) / 4;
	__u64 addresses = is_ipv6 ? sum_words(&inner->head[2], 8) : (__u64)inner->head[3] + inner->head[4];
	__u64 header = is_ipv6 ? sum_words(inner->head, 10) : sum_words(inner->head, 5);
	__u16 *udp = (__u16 *)(is_ipv6 ? &inner->head[10] : &inner->head[5]);
	__u64 pseudo = addresses + bpf_htons(IPPROTO_UDP) + udp[2];
	__u64 whole = *sum + (__u16)~fold(header) + pseudo; /* pseudo-header, UDP header, data */
	__u16 checksum;

	if (!is_unfinished(udp, addresses))
		return 0;
	if (fold(whole) != 0xffff) {
		checksum = ~fold(whole + (__u16)~udp[3]);
		if (!checksum)
			checksum = 0xffff;
		*sum = fold(*sum + (__u16)~udp[3] + checksum);
		udp[3] = checksum;
	}
	inner->taken = words * 4 + 16;
	return bpf_skb_adjust_room(skb, -(__s32)inner->taken, BPF_ADJ_ROOM_MAC, 0);
}

static __always_inline void count_hop(struct inner *inner, int is_ipv6)
{
	__u8 *octets = (__u8 *)inner->head;
	__u16 *words = (__u16 *)inner->head;

	if (is_ipv6) {
		octets[7]--;
		return;
	}
	/* RFC 1624 section 3, equation 3, with m - m' = 0x0100. */
	words[5] = ~fold((__u64)(__u16)~words[5] + bpf_htons(0xfeff));
	octets[8]--;
}

static __always_inline int write_ipv4(struct __sk_buff *skb, struct settings *settings, __u32 length)
{
	__u32 zero = 0, *last = bpf_map_lookup_elem(&identification, &zero);
	__u16 outer[15] = {};
	__u8 *octets = (__u8 *)outer;

	octets[0] = 0x45;
	outer[1] = bpf_htons(length + OUTER4 - ETH_HLEN);
	outer[3] = settings->fragment;
	/* A packet that no router may fragment needs no number (RFC 6864 section 4.1). */
	if (last && !settings->fragment)
		outer[2] = bpf_htons((__u16)(*last)++); /* the same on two processors at once is no harm */
	octets[8] = settings->ttl;
	octets[9] = IPPROTO_UDP;
	outer[10] = settings->port;
	outer[12] = bpf_htons(length + UDP_HEADER + 2);
	outer[14] = bpf_htons(AMT_DATA);
	return bpf_skb_store_bytes(skb, ETH_HLEN, outer, sizeof(outer), 0);
}

static __always_inline int write_ipv6(struct __sk_buff *skb, struct settings *settings, __u32 length)
{
	__u16 outer[25] = {};
	__u8 *octets = (__u8 *)outer;

	octets[0] = 0x60;
	outer[2] = bpf_htons(length + UDP_HEADER + 2);
	octets[6] = IPPROTO_UDP;
	octets[7] = settings->hop_limit;
	outer[20] = settings->port;
	outer[22] = outer[2];
	outer[24] = bpf_htons(AMT_DATA);
	return bpf_skb_store_bytes(skb, ETH_HLEN, outer, sizeof(outer), 0);
}

/* Returns 0, or something else when the packet could not be changed. */
static __always_inline int wrap(struct __sk_buff *skb, struct settings *settings, struct travel *travel)
{
	int by_ipv6 = travel->protocol == bpf_htons(ETH_P_IPV6), is_ipv6, failed;
	__u32 outer = by_ipv6 ? OUTER6 : OUTER4, length, size;
	struct inner inner = {};
	__u8 *octets = (__u8 *)inner.head;
	__s64 summed;
	__u64 sum;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, inner.head, IPV4_HEADER))
		return -1;
	is_ipv6 = octets[0] >> 4 == 6;
	if (is_ipv6 && bpf_skb_load_bytes(skb, ETH_HLEN, inner.head, IPV6_HEADER))
		return -1;
	length = is_ipv6 ? IPV6_HEADER + (octets[4] << 8 | octets[5]) : octets[2] << 8 | octets[3];
	if (length > LONGEST_PACKET || bare(skb, length))
		return -1;
	if (length >= SHORTEST_UNFINISHED && bpf_skb_load_bytes(skb, ETH_HLEN, inner.head, sizeof(inner.head)))
		return -1;
	count_hop(&inner, is_ipv6);
	if (is_ipv6)
		failed = bpf_skb_store_bytes(skb, ETH_HLEN, inner.head, 8, 0);
	else
		failed = bpf_skb_store_bytes(skb, ETH_HLEN, inner.head, 12, 0);
	summed = sum_packet(skb, length);
	if (failed || summed < 0)
		return -1;
	sum = summed;
	if (length >= SHORTEST_UNFINISHED && (is_ipv6 ? octets[6] == IPPROTO_UDP
						      : octets[9] == IPPROTO_UDP && !(octets[6] & 0x3f) && !octets[7]) &&
	    finish_checksum(skb, &inner, is_ipv6, &sum))
		return -1;
	size = outer - ETH_HLEN + inner.taken;
	if (bpf_skb_adjust_room(skb, size, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return -1;
	if (inner.taken == IPV6_HEADER + 16)
		failed = bpf_skb_store_bytes(skb, outer, inner.head, IPV6_HEADER + 16, 0);
	else if (inner.taken)
		failed = bpf_skb_store_bytes(skb, outer, inner.head, IPV4_HEADER + 16, 0);
	if (failed || (by_ipv6 ? write_ipv6(skb, settings, length) : write_ipv4(skb, settings, length)))
		return -1;
	travel->sum = fold(sum);
	travel->wrapped = 1;
	return 0;
}

#endif
