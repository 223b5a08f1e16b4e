// Runs at the edge for /responses/…, before the cache is looked up: finds the file of a public path in the version that
// is in force. It takes short ids (q1 for q1_capital), picks a variant for random.json, and answers 404 itself, so that
// S3 is asked for what it has. The files never change, and a version comes with this code: nobody sees two of them.
// Publishing puts the version in: the catalogue's hash, and a line a prompt: its id, its variants' number and hash.
var CATALOGUE = '';
var PROMPTS = '';

function handler(event) {
    var request = event.request;
    if (request.method === 'OPTIONS') {
        return answer(204, 'No Content', {
            'access-control-allow-methods': { value: 'GET, HEAD, OPTIONS' },
            'access-control-allow-headers': { value: 'authorization, *' },
            'access-control-max-age': { value: '600' },
        });
    }
    if (request.uri === '/responses/catalogue.json') {
        request.uri = '/published/catalogue/' + CATALOGUE + '.json';
        return request;
    }
    var parts = /^\/responses\/([A-Za-z0-9_-]+)\/(random|0|[1-9][0-9]*)\.json$/.exec(request.uri);
    var prompt = parts && find(parts[1]);
    if (!prompt || Number(parts[2]) >= prompt[1]) {
        return notFound(request.uri);
    }
    var variant = parts[2] === 'random' ? Math.floor(Math.random() * prompt[1]) : parts[2];
    request.uri = '/published/' + prompt[0] + '/' + prompt[2] + '/' + variant + '.json';
    return request;
}

// [id, variants, hash] by the id or the part of it before the first underscore.
function find(name) {
    var at = PROMPTS.indexOf('\n' + name + ' ');
    if (at < 0 && name.indexOf('_') < 0) {
        at = PROMPTS.indexOf('\n' + name + '_');
    }
    return at < 0 ? null : PROMPTS.slice(at + 1, PROMPTS.indexOf('\n', at + 1)).split(' ');
}

function notFound(uri) {
    var error = {
        message: 'There is no prepared answer at ' + uri + '.',
        type: 'invalid_request_error',
        param: null,
        code: 'not_found',
    };
    var response = answer(404, 'Not Found', {
        'content-type': { value: 'application/json' },
        'cache-control': { value: 'public, max-age=60' },
    });
    response.body = { encoding: 'text', data: JSON.stringify({ error: error }) };
    return response;
}

function answer(status, description, headers) {
    headers['access-control-allow-origin'] = { value: '*' };
    return { statusCode: status, statusDescription: description, headers: headers };
}
