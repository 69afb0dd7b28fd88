/* The programs on the uplinks, before the kernel has made a packet buffer. */
#ifndef ISTHMUS_GATEWAY_XDP_H
#define ISTHMUS_GATEWAY_XDP_H

#include "judge.h"
#include "maps.h"
#include "parse.h"
#include "rewrite.h"

#define XDP_PLANES (1 << PLANE_XDP | 1 << PLANE_XDP_MFC)

/* Cut off what is before and behind the inner packet, but for room for an Ethernet header. Returns 0, or an error after
 * which the packet is still whole. */
static __always_inline int strip(struct xdp_md *context, const struct packet *packet, __u32 octets)
{
	__u32 behind = octets - packet->at - packet->length;

	if (behind && bpf_xdp_adjust_tail(context, -(int)behind))
		return -1;
	return bpf_xdp_adjust_head(context, packet->at - sizeof(struct ethhdr));
}

/* Write the headers of a stripped packet for the interfaces it leaves by. Returns 0, or -1 when there is no packet. */
static __always_inline int rewrite_for_ports(struct xdp_md *context, const struct packet *packet)
{
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct iphdr *ipv4 = (void *)(ethernet + 1);
	struct ipv6hdr *ipv6 = (void *)(ethernet + 1);

	if (packet->version == 4) {
		if ((void *)(ipv4 + 1) > end)
			return -1;
		address_frame4(ethernet, ipv4);
		write_unknown_source(ethernet);
		rewrite_header4(ipv4, packet->ecn, 1, 0);
		return 0;
	}
	if ((void *)(ipv6 + 1) > end)
		return -1;
	address_frame6(ethernet, ipv6);
	write_unknown_source(ethernet);
	rewrite_header6(ipv6, packet->ecn, 1);
	return 0;
}

/* Give a packet to the outgoing interfaces of its channel. */
static __always_inline int redirect(struct xdp_md *context, const struct channel *channel)
{
	__u32 set = channel->set;
	void *interfaces;

	if (channel->single)
		return bpf_redirect_map(&single_ports, channel->single, XDP_DROP);
	interfaces = bpf_map_lookup_elem(&sets, &set);
	return interfaces ? bpf_redirect_map(interfaces, 0, BPF_F_BROADCAST | XDP_DROP) : XDP_DROP;
}

/* Write the headers of a stripped packet for the kernel's multicast routing: it will take the hop. Packets that carry
 * Don't Fragment lose it, since the kernel does not route them once they are joined, and are marked so that they get
 * it back; fragments are never joined. The secret destination is a station's that is not there: should the TC program
 * be gone, the kernel drops the packet rather than take it for multicast of the uplink. */
static __noinline int rewrite_for_routing(struct xdp_md *context, __u32 version, __u32 ecn)
{
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = (void *)(long)context->data;
	struct iphdr *ipv4 = (void *)(ethernet + 1);
	struct ipv6hdr *ipv6 = (void *)(ethernet + 1);
	struct settings *chosen;
	__u32 index = 0;

	chosen = bpf_map_lookup_elem(&settings, &index);
	if (!chosen)
		return -1;
	if (version == 4) {
		const __u8 *mark = chosen->secret_plain;

		if ((void *)(ipv4 + 1) > end)
			return -1;
		if (ipv4->frag_off == bpf_htons(IPV4_DONT_FRAGMENT))
			mark = chosen->secret_keep_whole;
		__builtin_memcpy(ethernet->h_dest, mark, ETH_ALEN);
		write_unknown_source(ethernet);
		ethernet->h_proto = bpf_htons(ETH_P_IP);
		rewrite_header4(ipv4, ecn, 0, 1);
		return 0;
	}
	if ((void *)(ipv6 + 1) > end)
		return -1;
	__builtin_memcpy(ethernet->h_dest, chosen->secret_plain, ETH_ALEN);
	write_unknown_source(ethernet);
	ethernet->h_proto = bpf_htons(ETH_P_IPV6);
	rewrite_header6(ipv6, ecn, 0);
	return 0;
}

/* Forward a packet that was found good. Returns the program's verdict. */
static __always_inline int forward(struct xdp_md *context, const struct packet *packet, __u32 octets)
{
	struct channel *channel = packet->channel;
	int verdict;

	if (strip(context, packet, octets)) {
		leave(NO_ROOM);
		return XDP_PASS;
	}
	if (channel->plane == PLANE_XDP) {
		verdict = rewrite_for_ports(context, packet) ? XDP_DROP : redirect(context, channel);
	} else {
		verdict = rewrite_for_routing(context, packet->version, packet->ecn) ? XDP_DROP : XDP_PASS;
	}
	if (verdict == XDP_DROP) {
		refuse(OUTPUT_ERROR);
		return XDP_DROP;
	}
	count_forwarded(channel->slot, channel->tunnel, packet->length);
	if (channel->announce)
		announce(channel);
	return verdict;
}

/* Which of `cores` processors takes the packets of an inner flow. */
static __always_inline __u32 core_of(struct cursor *cursor, __u32 at, __u32 cores)
{
	const __be16 *words = words_of(cursor->start + at);
	__u32 mixed;

	if ((void *)(words + 10) > cursor->end)
		return 0;
	mixed = (words[6] << 16 | words[7]) ^ (words[8] << 16 | words[9]) * 0x9e3779b1; /* source and group of IPv4 */
	if (*(__u8 *)words >> 4 == 6) {
		if ((void *)(words + 20) > cursor->end)
			return 0;
		mixed = (words[8] << 16 | words[9]) ^ (words[10] << 16 | words[11]) ^
			(words[18] << 16 | words[19]) * 0x9e3779b1;
	}
	return (mixed * 0x85ebca6b >> 16) % cores;
}

/* Hand a packet to the processor of its flow. Returns XDP_REDIRECT, or XDP_PASS when it is to be handled here. */
static __always_inline int spread(struct cursor *cursor, __u32 at)
{
	__u32 index = 0;
	struct settings *chosen = bpf_map_lookup_elem(&settings, &index);

	if (!chosen || !chosen->receive_cores)
		return XDP_PASS;
	return bpf_redirect_map(&receive_cpus, core_of(cursor, at, chosen->receive_cores), XDP_PASS);
}

static __always_inline int receive(struct xdp_md *context, struct cursor *cursor, const struct link *link, int spreading)
{
	/* Without CAP_PERFMON the difference of two pointers is no number. */
	struct arrival arrival = { .vlans = link->vlans, .octets = bpf_xdp_get_buff_len(context) };
	struct packet packet = {};
	int outcome = judge_outer(cursor, link->ethertype, &arrival, &packet);

	if (outcome == FORWARD) {
		if (spreading && spread(cursor, packet.at) == XDP_REDIRECT)
			return XDP_REDIRECT;
		outcome = judge_inner(cursor, &packet, XDP_PLANES);
	}
	if (outcome == FORWARD)
		return forward(context, &packet, arrival.octets);
	return outcome == REFUSE ? XDP_DROP : XDP_PASS;
}

/* Any frame. */
static __noinline int receive_any(struct xdp_md *context, int spreading)
{
	struct cursor cursor = { (void *)(long)context->data, (void *)(long)context->data_end, 0 };
	struct link link;

	if (parse_link(&cursor, &link))
		return XDP_PASS;
	return receive(context, &cursor, &link, spreading);
}

/* Frames without tags that carry IPv4 in IPv4 go through a copy of the code made for them alone. */
static __always_inline int receive_quickly(struct xdp_md *context, int spreading)
{
	struct cursor cursor = { (void *)(long)context->data, (void *)(long)context->data_end, sizeof(struct ethhdr) };
	struct link link = { .ethertype = bpf_htons(ETH_P_IP) };
	struct ethhdr *ethernet = cursor.start;
	__u8 *inner = (void *)(ethernet + 1) + OUTER4_SIZE;

	if ((void *)(inner + sizeof(struct iphdr)) > cursor.end)
		return XDP_PASS; /* too short for any message we know */
	if (ethernet->h_proto != bpf_htons(ETH_P_IP) || *inner >> 4 != 4)
		return receive_any(context, spreading);
	return receive(context, &cursor, &link, spreading);
}

SEC("xdp")
int gateway_xdp(struct xdp_md *context)
{
	return receive_quickly(context, 1);
}

/* On the processor that gateway_xdp handed a packet to. */
SEC("xdp/cpumap")
int gateway_cpu(struct xdp_md *context)
{
	return receive_quickly(context, 0);
}

#endif
