/* Folders and single files that mounts serve: opened once, and files below them
 * opened so that no name leads out. */
#ifndef POOLSRV_FOLDERS_H
#define POOLSRV_FOLDERS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/scoreboard.h"
#include "protocol/media_types.h"

/* Which symbolic links below a folder are followed. X(id, text) */
#define FOLDER_LINKS(X)       \
    X(LINKS_NONE, "none")     \
    X(LINKS_INSIDE, "inside") \
    X(LINKS_ANYWHERE, "anywhere")

typedef enum {
#define X(id, text) id,
    FOLDER_LINKS(X)
#undef X
} FolderLinks;

/* What is known, for a second, of files that lie beside others: found.c. */
#define FOLDER_VARIANTS 256

/* The texts are the maker's, and stay. */
typedef struct {
    const char *path; /* of the folder, or of the file */
    bool is_file;     /* it is one file: only the mount's own path names it */
    FolderLinks links;
    const char *index;         /* for paths that end with a slash; "": none */
    const char *cache_control; /* "": none */
    const char
        *immutable;     /* the same, of names that hold a hash; "": no other */
    bool precompressed; /* answer with x.br, x.zst or x.gz for x */
    const char *fields; /* more of every answer: complete lines */
    const MediaType *types; /* before the built-in ones */
    uint32_t type_count;

    /* Ours. */
    int fd;           /* of the folder, O_PATH; -1: it is a file */
    bool has_beneath; /* the kernel knows openat2, and seccomp lets us */
    Word looked;      /* the second in which the path was last looked at */
    Word variants[FOLDER_VARIANTS];
} Folder;

/* Open it. A folder that is not there is looked for once a second, like one
 * that is replaced (a deploy that turns a link, say). -1 and errno: there is no
 * descriptor for it. */
int folders_open(Folder *folder);
void folders_close(Folder *folder);

/* The time has come to look whether another folder is at the path. `now` in
 * nanoseconds. */
void folders_look(Folder *folder, uint64_t now);

/* Open a file for reading: `name` is a path below the folder that
 * file_names_judge() has found good; of a single file it is the whole path, or
 * that of a file beside it. Never waits for one that is no file. -1
 * and errno; clients must not tell these apart: ENOENT, ELOOP for a link that
 * is not followed, EACCES for what may not be read. */
int folders_open_file(const Folder *folder, const char *name);

#endif
