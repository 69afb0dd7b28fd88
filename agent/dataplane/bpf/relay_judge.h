/* Whether a native packet is for the programs. Capture socket and TC program ask the same question of the same packet,
 * so what one takes the other leaves; nothing that can differ between the two may be asked here. */
#ifndef ISTHMUS_RELAY_JUDGE_H
#define ISTHMUS_RELAY_JUDGE_H

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>

#include "relay_maps.h"

#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define UDP_HEADER 8
#define SHORTEST_UNFINISHED 96 /* inner octets with an unfinished checksum from which on it can be finished here */

enum verdict {
	LEAVE,               /* to userspace, or to nobody */
	FORWARD,
	REFUSE_HEADER,       /* and count */
	REFUSE_TTL,
};

struct packet {
	struct channel *channel;
	struct list *list;
	__u32 length;        /* octets of the inner packet */
	__u32 unfinished;    /* its UDP checksum is that of the pseudo-header alone: CHECKSUM_PARTIAL, most likely */
};

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __always_inline __u64 sum_words(const __u32 *words, int count)
{
	__u64 sum = 0;

#pragma clang loop unroll(full) /* without CAP_PERFMON the verifier wants offsets that are numbers */
	for (int i = 0; i < count; i++)
		sum += words[i];
	return sum;
}

/* Whether the UDP checksum in `udp` is the folded sum of the pseudo-header, `addresses` being that of its addresses. */
static __always_inline int is_unfinished(const __u16 *udp, __u64 addresses)
{
	return udp[3] && udp[3] == fold(addresses + bpf_htons(IPPROTO_UDP) + udp[2]);
}

static __always_inline enum verdict judge_length(struct __sk_buff *skb, struct packet *packet)
{
	packet->list = bpf_map_lookup_elem(&lists, &packet->channel->list);
	if (!packet->list || skb->gso_size || packet->length > packet->list->limit || packet->length > LONGEST_PACKET)
		return LEAVE;
	if (packet->length + ETH_HLEN > skb->len)
		return REFUSE_HEADER;
	return FORWARD;
}

static __always_inline enum verdict judge_ipv4(struct __sk_buff *skb, struct packet *packet)
{
	__u32 head[7] = {};
	__u8 *octets = (__u8 *)head;
	struct channel4_key key;
	enum verdict verdict;

	if (bpf_skb_load_bytes_relative(skb, 0, head, IPV4_HEADER, BPF_HDR_START_NET))
		return LEAVE;
	key.source = head[3];
	key.group = head[4];
	packet->channel = bpf_map_lookup_elem(&channels4, &key);
	if (!packet->channel || octets[0] != 0x45) /* options are rare: userspace */
		return LEAVE;
	packet->length = octets[2] << 8 | octets[3];
	verdict = judge_length(skb, packet);
	if (verdict != FORWARD)
		return verdict;
	if (packet->length < IPV4_HEADER || fold(sum_words(head, 5)) != 0xffff)
		return REFUSE_HEADER;
	if (octets[8] <= 1)
		return REFUSE_TTL;
	/* A fragment's checksum is complete, and only the first has one. */
	if (octets[9] == IPPROTO_UDP && !(octets[6] & 0x3f) && !octets[7] &&
	    packet->length >= IPV4_HEADER + UDP_HEADER) {
		if (bpf_skb_load_bytes_relative(skb, IPV4_HEADER, &head[5], UDP_HEADER, BPF_HDR_START_NET))
			return LEAVE;
		packet->unfinished = is_unfinished((__u16 *)&head[5], (__u64)head[3] + head[4]);
		if (packet->unfinished && packet->length < SHORTEST_UNFINISHED)
			return LEAVE;
	}
	return FORWARD;
}

/* Extension headers hide where a checksum may stand: userspace, which is told. */
static __always_inline int is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT || next == IPPROTO_DSTOPTS;
}

static __always_inline enum verdict judge_ipv6(struct __sk_buff *skb, struct packet *packet)
{
	__u32 head[12] = {};
	__u8 *octets = (__u8 *)head;
	enum verdict verdict;

	if (bpf_skb_load_bytes_relative(skb, 0, head, IPV6_HEADER, BPF_HDR_START_NET))
		return LEAVE;
	packet->channel = bpf_map_lookup_elem(&channels6, &head[2]);
	if (!packet->channel || octets[0] >> 4 != 6 || is_extension(octets[6]))
		return LEAVE;
	packet->length = IPV6_HEADER + (octets[4] << 8 | octets[5]);
	verdict = judge_length(skb, packet);
	if (verdict != FORWARD)
		return verdict;
	if (packet->length == IPV6_HEADER)
		return REFUSE_HEADER; /* a jumbogram */
	if (octets[7] <= 1)
		return REFUSE_TTL;
	if (octets[6] == IPPROTO_UDP && packet->length >= IPV6_HEADER + UDP_HEADER) {
		if (bpf_skb_load_bytes_relative(skb, IPV6_HEADER, &head[10], UDP_HEADER, BPF_HDR_START_NET))
			return LEAVE;
		packet->unfinished = is_unfinished((__u16 *)&head[10], sum_words(&head[2], 8));
		if (packet->unfinished && packet->length < SHORTEST_UNFINISHED)
			return LEAVE;
	}
	return FORWARD;
}

static __always_inline enum verdict judge(struct __sk_buff *skb, struct packet *packet)
{
	if (skb->pkt_type >= PACKET_OTHERHOST || skb->vlan_present)
		return LEAVE;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return judge_ipv4(skb, packet);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return judge_ipv6(skb, packet);
	return LEAVE;
}

#endif
