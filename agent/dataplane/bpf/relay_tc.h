/* Native packets of channels that are wholly ours: a copy goes round by the interface's own input queue, where it may be
 * changed as we like while the original goes on into the host, and comes back here to be sent to every tunnel. After a
 * number of them it goes round again, so that other work, and the queues these copies went to, have their turn. */
#ifndef ISTHMUS_RELAY_TC_H
#define ISTHMUS_RELAY_TC_H

#include <linux/pkt_cls.h>

#include "relay_send.h"

#define TRAVEL_OCTETS 14 /* of struct travel, without the padding behind it */

static __always_inline int go_round(struct __sk_buff *skb, struct settings *settings, struct travel *travel)
{
	int failed = bpf_skb_store_bytes(skb, 0, travel, TRAVEL_OCTETS, 0);

	skb->mark = settings->mark;
	return failed ? failed : bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
}

static __always_inline int come_round(struct __sk_buff *skb, struct settings *settings)
{
	struct sending run = { .skb = skb };
	struct travel travel = {};
	struct list *list;
	__u32 total, left, outer;
	int by_ipv6;

	if (bpf_skb_load_bytes(skb, 0, &travel, TRAVEL_OCTETS) || travel.nobody != NOBODY)
		return TC_ACT_SHOT;
	list = bpf_map_lookup_elem(&lists, &travel.list);
	if (!list)
		return TC_ACT_SHOT;
	by_ipv6 = travel.protocol == bpf_htons(ETH_P_IPV6);
	outer = by_ipv6 ? OUTER6 : OUTER4;
	total = by_ipv6 ? list->ipv6 : list->ipv4;
	if (travel.position >= total)
		return TC_ACT_SHOT;
	left = total - travel.position;
	run.member = list->first + (by_ipv6 ? list->ipv4 : 0) + travel.position;
	run.length = skb->len - ETH_HLEN;
	if (!travel.wrapped && wrap(skb, settings, &travel)) {
		bpf_loop(left, lose_one, &run, 0);
		return TC_ACT_SHOT;
	}
	run.length = skb->len - outer;
	if (bpf_skb_pull_data(skb, outer) || sum_headers(&run, settings, &travel)) {
		bpf_loop(left, lose_one, &run, 0);
		return TC_ACT_SHOT;
	}
	skb->mark = 0;
	bpf_set_hash_invalid(skb); /* or all tunnels would be one flow to queues behind */
	if (left > settings->chunk)
		left = settings->chunk;
	if (by_ipv6)
		bpf_loop(left, send_ipv6, &run, 0);
	else
		bpf_loop(left, send_ipv4, &run, 0);
	travel.position += left;
	if (travel.position < total && go_round(skb, settings, &travel)) {
		run.member += left;
		bpf_loop(total - travel.position, lose_one, &run, 0);
	}
	return TC_ACT_SHOT;
}

/* A function of its own, with a stack of its own: without CAP_PERFMON the verifier lets no half a word take the place
 * of a pointer that was put aside there. */
static __noinline int set_out(struct __sk_buff *skb, struct settings *settings, struct packet *packet)
{
	struct traffic *traffic = bpf_map_lookup_elem(&channel_counters, &packet->channel->slot);
	struct sending run = { .skb = skb, .member = packet->list->first, .length = packet->length };
	struct travel travel = { .nobody = NOBODY, .list = packet->channel->list };
	__u32 ipv4 = packet->list->ipv4, ipv6 = packet->list->ipv6, mark = skb->mark;
	__u8 link[ETH_HLEN];

	if (traffic) {
		traffic->packets++;
		traffic->octets += packet->length;
	}
	if (bpf_skb_load_bytes(skb, 0, link, sizeof(link)))
		return -1;
	travel.protocol = bpf_htons(ETH_P_IP);
	if (ipv4 && go_round(skb, settings, &travel))
		bpf_loop(ipv4, lose_one, &run, 0);
	travel.protocol = bpf_htons(ETH_P_IPV6);
	run.member += ipv4;
	if (ipv6 && go_round(skb, settings, &travel))
		bpf_loop(ipv6, lose_one, &run, 0);
	skb->mark = mark;
	return bpf_skb_store_bytes(skb, 0, link, sizeof(link), 0);
}

static __always_inline void refuse(enum verdict verdict)
{
	__u32 reason = verdict == REFUSE_TTL ? TTL_EXPIRED : BAD_INNER_HEADER;
	__u64 *count = bpf_map_lookup_elem(&refused, &reason);

	if (count)
		(*count)++;
}

SEC("tc")
int relay_tc(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct settings *known = bpf_map_lookup_elem(&settings, &zero);
	struct packet packet = {};
	enum verdict verdict;

	if (!known || !known->mark)
		return TC_ACT_UNSPEC;
	if (skb->mark == known->mark && skb->pkt_type == PACKET_OTHERHOST)
		return come_round(skb, known);
	verdict = judge(skb, &packet);
	if (verdict == FORWARD)
		set_out(skb, known, &packet);
	else if (verdict != LEAVE)
		refuse(verdict);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int relay_tc_entry(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &tc_programs, 0);
	return TC_ACT_UNSPEC;
}

#endif
