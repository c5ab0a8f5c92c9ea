/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Intrusive doubly linked lists: a head and its links are the same struct.
 *
 * Not thread-safe; the owner of the list says who may touch it.
 */
#ifndef UTIL_LIST_H
#define UTIL_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct ListHead {
    struct ListHead *next;
    struct ListHead *prev;
} ListHead;

/** The struct that contains @link as its member @member. */
#define LIST_ENTRY(link, type, member)                                        \
    ((type *)((char *)(link) - offsetof(type, member)))

/** Walk @head; the body must not remove @link_. */
#define LIST_FOREACH(link_, head)                                             \
    for (ListHead *link_ = (head)->next; link_ != (head); link_ = link_->next)

/** Walk @head; the body may remove @link_, and only it. */
#define LIST_FOREACH_SAFE(link_, head)                                        \
    for (ListHead *link_ = (head)->next, *next_ = link_->next;                \
         link_ != (head); link_ = next_, next_ = link_->next)

/** Make @head empty, or @link unlinked. */
static inline void list_init(ListHead *head)
{
    head->next = head;
    head->prev = head;
}

/** Whether @head is empty, or @link unlinked. */
static inline bool list_empty(const ListHead *head)
{
    return head->next == head;
}

/** Link @link before @head: at the end of the list. */
static inline void list_append(ListHead *head, ListHead *link)
{
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

/** Unlink @link; it may be unlinked already. */
static inline void list_remove(ListHead *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    list_init(link);
}

/** Move all of @from to the end of @to. */
static inline void list_append_all(ListHead *to, ListHead *from)
{
    if (list_empty(from)) {
        return;
    }
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

#endif /* UTIL_LIST_H */
